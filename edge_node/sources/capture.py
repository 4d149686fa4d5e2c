"""Reads video files and the cameras at this machine, both through OpenCV's `VideoCapture`."""

from __future__ import annotations

from pathlib import Path

import cv2

from diredi.detectors.predictor import Image
from diredi.errors import InvalidInput, NotFound, Unreachable
from edge_node.sources.base import SourceOptions


class Video:
    """Read the frames of a video file."""

    def __init__(self, path: Path, repeat: bool) -> None:
        """Open a file, to be started again at its end where `repeat` is set. Raises InvalidInput if it is no video."""
        self._path = path
        self._repeat = repeat
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise InvalidInput(f"source video {path} cannot be decoded: use a format that OpenCV reads")

    def read(self) -> Image | None:
        """Return the next frame, or None after the last."""
        there, frame = self._capture.read()
        if not there and self._repeat:
            self._capture.release()
            self._capture = cv2.VideoCapture(str(self._path))
            there, frame = self._capture.read()
        return frame if there else None

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


def open_video(place: str, options: SourceOptions) -> Video:
    """Open a video file. Raises NotFound when there is none, InvalidInput when OpenCV cannot decode it."""
    path = Path(place)
    if not path.is_file():
        raise NotFound(f"source video {path} does not exist: check --source")
    return Video(path, options.repeat)


class Camera:
    """Read frames of the camera with an index."""

    def __init__(self, index: int) -> None:
        """Open a camera. Raises NotFound when it does not open."""
        self._index = index
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise NotFound(f"camera {index} does not open: check that it is connected and that no other program has it")

    def read(self) -> Image:
        """Return the next frame. Raises Unreachable when there is none."""
        frame: Image
        there, frame = self._capture.read()
        if not there:
            raise Unreachable(f"camera {self._index} gives no frames: check that it is still connected")
        return frame

    def close(self) -> None:
        """Close the camera."""
        self._capture.release()


def open_camera(place: str, options: SourceOptions) -> Camera:
    """Open a camera by its index. Raises InvalidInput for anything but an index, NotFound for one without a camera."""
    if not place.isdecimal():
        raise InvalidInput(f"camera {place!r} is not an index such as camera:0")
    return Camera(int(place))
