"""Reads the images of a folder in the order of their names, or the built-in scenes of a site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import structlog

from diredi.data.images import IMAGE_SUFFIXES, find_images, read_image
from diredi.detectors.predictor import Image
from diredi.errors import DatasetError, InvalidInput, NotFound
from edge_node.sources.base import SourceOptions

SCENES = 24
"""How many built-in scenes are shown."""


class Folder:
    """Read image files one after the other."""

    def __init__(self, images: Sequence[Path], repeat: bool) -> None:
        """Read these files, and start again after the last where `repeat` is set."""
        self._images: Iterator[Path] = cycle(images) if repeat else iter(images)

    def read(self) -> Image | None:
        """Return the next image, or None after the last. Raises DatasetError for one that cannot be decoded."""
        path = next(self._images, None)
        return None if path is None else read_image(path)

    def close(self) -> None:
        """Do nothing: no file is open between two frames."""


def open_folder(place: str, options: SourceOptions) -> Folder:
    """Open a folder of images. Hidden files and folders in it are not looked at.

    Raises:
        NotFound: There is no such folder.
        InvalidInput: It holds no image, or none that can be decoded.
    """
    folder = Path(place)
    if not folder.is_dir():
        raise NotFound(f"source folder {folder} does not exist: check --source")
    found = find_images(folder)
    if found.others:
        structlog.get_logger().warning("files_left_out", folder=str(folder), files=dict(found.others))
    if not found.images:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InvalidInput(f"source folder {folder} holds no image ({suffixes}): check --source")
    _check_one_can_be_read(found.images)
    return Folder(found.images, options.repeat)


def open_scenes(place: str, options: SourceOptions) -> Folder:
    """Open the built-in scenes of a site, for a node without a camera. Raises InvalidInput for an unknown site."""
    from diredi.data.dataset import load  # a node with a camera does without the painter of scenes
    from diredi.data.sources import resolve

    path = resolve(f"scenes:{place}", options.cache, seed=options.seed, train=1, val=SCENES)
    return Folder([sample.image for sample in load(path, ("val",), labelled=False).val], options.repeat)


def _check_one_can_be_read(images: Sequence[Path]) -> None:
    first: DatasetError | None = None
    for path in images:
        try:
            read_image(path)
        except DatasetError as error:
            first = first or error
        else:
            return
    assert first is not None
    raise first
