"""Reads a camera at this machine through OpenCV."""

from __future__ import annotations

import cv2

from diredi.detectors.predictor import Image
from diredi.errors import InvalidInput, NotFound, Unreachable
from edge_node.sources.base import SourceOptions


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
