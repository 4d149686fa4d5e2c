"""Reads the images of a folder in the order of their names."""

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
    """Read image files one after the other."""

    def __init__(self, images: Sequence[Path], repeat: bool) -> None:
        """Read these files, and start again after the last where `repeat` is set."""
        self._images: Iterator[Path] = cycle(images) if repeat else iter(images)

    def read(self) -> Image | None:
        """Return the next image, or None after the last."""
        path = next(self._images, None)
        return None if path is None else read_image(path)

    def close(self) -> None:
        """Do nothing: no file is open between two frames."""


def open_folder(place: str, options: SourceOptions) -> Folder:
    """Open a folder of images.

    Raises:
        NotFound: There is no such folder.
        InvalidInput: It holds no image, or its first one cannot be decoded.
    """
    folder = Path(place)
    if not folder.is_dir():
        raise NotFound(f"source folder {folder} does not exist: check --source")
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise InvalidInput(f"source folder {folder} holds no image ({', '.join(sorted(SUFFIXES))}): check --source")
    read_image(images[0])
    return Folder(images, options.repeat)
