"""Reads the images of a folder in the order of their names or as they arrive, or the built-in scenes of a site."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from diredi.data.images import IMAGE_SUFFIXES, find_images, read_image
from diredi.errors import DatasetError, NotFound
from edge_node.sources.base import Frame, Source, SourceOptions

SCENES = 24
"""How many built-in scenes are shown."""
LOOK_S = 0.25
"""How often a watched folder is looked at."""
WRITING_S = 5.0
"""For how long an image that cannot be decoded yet may still be on its way into a watched folder."""


class Folder:
    """Read image files one after the other."""

    live = False

    def __init__(self, images: Callable[[], Sequence[Path]], repeat: bool) -> None:
        """Read the files that `images` returns; where `repeat` is set, ask for them again after the last."""
        self._find = images
        self._repeat = repeat
        self._images = iter(images())

    def read(self) -> Frame | None:
        """Return the next image, or None after the last.

        Raises:
            DatasetError: The image cannot be decoded.
            NotFound: The folder is gone, or all images in it.
        """
        path = next(self._images, None)
        if path is None and self._repeat:
            self._images = iter(self._find())
            path = next(self._images)
        return None if path is None else Frame(read_image(path))

    def close(self) -> None:
        """Do nothing: no file is open between two frames."""


class WatchedFolder:
    """Read images as they are written into a folder, each once, oldest first."""

    live = False

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        """Wait for images that are written from now on."""
        self._folder = folder
        self._stopped = options.stopped
        self._known = dict(self._look())

    def read(self) -> Frame | None:
        """Return the next image when there is one; None once the source is to end.

        Raises:
            DatasetError: An image cannot be decoded, though nobody has written to it for some seconds.
            NotFound: The folder is gone.
        """
        while not self._stopped.is_set():
            found = self._look()
            self._known = {path: at for path, at in self._known.items() if path in found}
            new = [(at, path) for path, at in found.items() if self._known.get(path) != at]
            for at, path in sorted(new):
                try:
                    image = read_image(path)
                except DatasetError:
                    if time.time_ns() - at < WRITING_S * 1e9:
                        continue
                    self._known[path] = at
                    raise
                self._known[path] = at
                return Frame(image, at / 1e9)
            self._stopped.wait(LOOK_S)
        return None

    def _look(self) -> dict[Path, int]:
        """Return when each image was last written to."""
        found = {}
        for path in find_images(_existing(self._folder)).images:
            try:
                found[path] = path.stat().st_mtime_ns
            except OSError:  # deleted since
                continue
        return found

    def close(self) -> None:
        """Do nothing: no file is open between two frames."""


def open_folder(place: str, options: SourceOptions) -> Source:
    """Open a folder of images. Hidden files and folders in it are not looked at.

    Raises:
        NotFound: There is no such folder, or no image in it.
        DatasetError: None of its images can be decoded.
    """
    folder = _existing(Path(place))
    if options.settings.watch:
        return WatchedFolder(folder, options)
    found = find_images(folder)
    if found.others:
        structlog.get_logger().warning("files_left_out", folder=str(folder), files=dict(found.others))
    _check_one_can_be_read(_images(folder))
    return Folder(lambda: _images(folder), options.repeat)


def open_scenes(place: str, options: SourceOptions) -> Folder:
    """Open the built-in scenes of a site, for a node without a camera. Raises InvalidInput for an unknown site."""
    from diredi.data.dataset import load  # a node with a camera does without the painter of scenes
    from diredi.data.sources import resolve

    path = resolve(f"scenes:{place}", options.cache, seed=options.seed, train=1, val=SCENES)
    images = [sample.image for sample in load(path, ("val",), labelled=False).val]
    return Folder(lambda: images, options.repeat)


def _images(folder: Path) -> Sequence[Path]:
    images = find_images(_existing(folder)).images
    if not images:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise NotFound(f"source folder {folder} holds no image ({suffixes}): check --source")
    return images


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise NotFound(f"source folder {folder} does not exist: check --source")
    return folder


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
