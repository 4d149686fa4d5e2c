"""A video file, through OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2

from diredi.detectors.predictor import Image
from diredi.errors import InvalidInput, NotFound
from edge_node.sources.base import SourceOptions


class Video:
    def __init__(self, path: Path, repeat: bool) -> None:
        self._path = path
        self._repeat = repeat
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise InvalidInput(f"source video {path} cannot be decoded: use a format that OpenCV reads")

    def read(self) -> Image | None:
        there, frame = self._capture.read()
        if not there and self._repeat:
            self._capture.release()
            self._capture = cv2.VideoCapture(str(self._path))
            there, frame = self._capture.read()
        return frame if there else None

    def close(self) -> None:
        self._capture.release()


def open_video(place: str, options: SourceOptions) -> Video:
    """Raises NotFound when there is no such file, InvalidInput when OpenCV cannot decode it."""
    path = Path(place)
    if not path.is_file():
        raise NotFound(f"source video {path} does not exist: check --source")
    return Video(path, options.repeat)
