"""A frame as a few cells of colour: what is cheap to compare and to measure in every frame."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi.detectors.predictor import Image

CELLS: Final = 24
"""Rows and columns."""

Thumbnail = NDArray[np.float32]
"""float32 [CELLS * CELLS, 3]: the mean levels of blue, green and red of each cell, 0 to 255."""


def thumbnail_of(image: Image) -> Thumbnail:
    """Return the mean colour of each cell of a frame. Noise does not change it."""
    small = cv2.resize(image, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).reshape(-1, 3)
