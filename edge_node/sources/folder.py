"""A folder of images, in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from diredi.data.images import read_image
from diredi.detectors.predictor import Image
from diredi.errors import InvalidInput, NotFound
from edge_node.sources.base import SourceOptions

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class Folder:
    def __init__(self, images: Sequence[Path], repeat: bool) -> None:
        self._images: Iterator[Path] = cycle(images) if repeat else iter(images)

    def read(self) -> Image | None:
        path = next(self._images, None)
        return None if path is None else read_image(path)

    def close(self) -> None:
        pass


def open_folder(place: str, options: SourceOptions) -> Folder:
    """Raises NotFound when there is no such folder, InvalidInput when it holds no image or a first one that is none."""
    folder = Path(place)
    if not folder.is_dir():
        raise NotFound(f"source folder {folder} does not exist: check --source")
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise InvalidInput(f"source folder {folder} holds no image ({', '.join(sorted(SUFFIXES))}): check --source")
    read_image(images[0])
    return Folder(images, options.repeat)
