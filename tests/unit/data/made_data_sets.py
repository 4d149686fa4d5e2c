"""What the tests of data sets share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

NAMES = ["car", "person"]

Builder = Callable[..., Path]


def write_image(path: Path, seed: int = 0) -> None:
    picture = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
