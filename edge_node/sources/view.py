"""What a node looks at in a frame: rotated, cropped, masked; and whether anything moved in it."""

from __future__ import annotations

import cv2
import numpy as np

from diredi.detectors.predictor import Image
from edge_node.sources.reference import SourceSettings

_TURNS = {"90": cv2.ROTATE_90_CLOCKWISE, "180": cv2.ROTATE_180, "270": cv2.ROTATE_90_COUNTERCLOCKWISE}
SMALL = (96, 72)
"""Width and height at which frames are compared."""
CHANGED = 20
"""By how many of 255 levels of grey a place must differ to count as changed."""
STILL_S = 10.0
"""A frame is looked at after so many seconds although nothing moved."""


def view(image: Image, settings: SourceSettings) -> Image:
    """Return the part of a frame that is looked at.

    Args:
        image: uint8, [height, width, 3], BGR. It is not changed.
        settings: Rotation, crop and masks.

    Returns:
        uint8, [height, width, 3], BGR: at least one pixel.
    """
    if settings.rotate != "0":
        image = np.asarray(cv2.rotate(image, _TURNS[settings.rotate]), np.uint8)
    if settings.crop is not None:
        height, width = image.shape[:2]
        left, right = (round(share * width) for share in settings.crop[::2])
        top, bottom = (round(share * height) for share in settings.crop[1::2])
        left, top = min(left, width - 1), min(top, height - 1)
        image = np.ascontiguousarray(image[top : max(bottom, top + 1), left : max(right, left + 1)])
    if settings.mask:
        image = image.copy()
        height, width = image.shape[:2]
        for corners in settings.mask:
            shape = np.array(corners).reshape(-1, 2) * (width, height)
            cv2.fillPoly(image, [np.rint(shape).astype(np.int32)], (0, 0, 0))
    return image


class MotionGate:
    """Tell whether something moved since the last frame that was looked at."""

    def __init__(self, share: float) -> None:
        """Make a gate that opens when at least this share (0 to 1) of the frame has changed. 0: it is always open."""
        self._share = share
        self._last: Image | None = None
        self._looked_s = 0.0

    def is_open(self, image: Image, now_s: float) -> bool:
        """Return whether a frame is to be looked at.

        Args:
            image: uint8, [height, width, 3], BGR.
            now_s: Seconds of a clock that never goes back.
        """
        if self._share == 0:
            return True
        small = cv2.GaussianBlur(cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), SMALL), (5, 5), 0)
        changed = 1.0 if self._last is None else float((cv2.absdiff(small, self._last) > CHANGED).mean())
        if changed < self._share and now_s - self._looked_s < STILL_S:
            return False
        self._last, self._looked_s = np.asarray(small, np.uint8), now_s
        return True
