"""Objects cut out of images, and pasted on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi.data.yolo import Boxes
from diredi.detectors.predictor import Image

SMALLEST = 12
"""Pixels of a crop's shorter side; what is smaller shows nothing."""
HIDDEN = 0.6
"""A box of which a larger share is covered is dropped."""
_MARGIN = 0.06  # of the box, around it: the soft edge
_ZOOM = 0.2


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of an image with one object in it."""

    pixels: Image
    kind: int
    """Class id."""
    ground: float
    """Where the object stood: the lower edge of its box, 0..1 of the image's height. Far things are small and high."""
    height: float
    """Of the crop, 0..1 of the image's height."""


def cut_out(image: Image, box: NDArray[np.float32] | Sequence[float], kind: int) -> Crop | None:
    """The object in `box` (x1, y1, x2, y2, pixels); None where it is tiny or cut off by the image's edge."""
    x1, y1, x2, y2 = (float(v) for v in box)
    height, width = image.shape[:2]
    inside = x1 > 1 and y1 > 1 and x2 < width - 1 and y2 < height - 1
    if not inside or min(x2 - x1, y2 - y1) < SMALLEST:
        return None
    across, down = (x2 - x1) * _MARGIN, (y2 - y1) * _MARGIN
    left, right = max(round(x1 - across), 0), min(round(x2 + across), width)
    top, bottom = max(round(y1 - down), 0), min(round(y2 + down), height)
    return Crop(image[top:bottom, left:right].copy(), kind, y2 / height, (bottom - top) / height)


def paste(image: Image, boxes: Boxes, crop: Crop, rng: np.random.Generator) -> tuple[Image, Boxes]:
    """`image` with the crop in it, about where it stood and as large as it was, and the boxes of both.

    `boxes` as in a `Sample`. The edge is soft, and the crop takes half of the way to the light of the place.
    """
    height, width = image.shape[:2]
    zoom = 1 + _ZOOM * rng.uniform(-1, 1)
    tall = int(np.clip(crop.height * height * zoom, 4, height))
    wide = int(np.clip(crop.pixels.shape[1] * tall / crop.pixels.shape[0], 4, width))
    scaled = cv2.resize(crop.pixels, (wide, tall), interpolation=cv2.INTER_AREA).astype(np.float32)
    scaled = scaled[:, ::-1] if rng.random() < 0.5 else scaled
    left = int(rng.integers(0, width - wide + 1))
    top = int(np.clip((crop.ground + 0.05 * rng.uniform(-1, 1)) * height - tall, 0, height - tall))
    there = image[top : top + tall, left : left + wide].astype(np.float32)
    scaled = scaled * (1 + (there.mean() + 1) / (scaled.mean() + 1)) / 2
    mask = _soft_mask(tall, wide)
    made = image.copy()
    made[top : top + tall, left : left + wide] = np.clip(there * (1 - mask) + scaled * mask + 0.5, 0, 255)
    inner = 1 / (1 + 2 * _MARGIN)
    centre = (left + wide / 2) / width, (top + tall / 2) / height
    ours = np.array([[crop.kind, *centre, wide * inner / width, tall * inner / height]], np.float32)
    return made, np.concatenate([boxes[_covered_share(boxes, ours[0]) < HIDDEN], ours])


def _soft_mask(tall: int, wide: int) -> NDArray[np.float32]:
    """tall x wide x 1: 1 inside, falling to 0 across the margin."""
    down, across = (np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) / max(n * _MARGIN, 1) for n in (tall, wide))
    return np.asarray(np.clip(np.minimum(down[:, None], across[None]), 0, 1), np.float32)[..., None]


def _covered_share(boxes: Boxes, other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of each box that `other` covers."""
    low = np.maximum(boxes[:, 1:3] - boxes[:, 3:] / 2, other[1:3] - other[3:] / 2)
    high = np.minimum(boxes[:, 1:3] + boxes[:, 3:] / 2, other[1:3] + other[3:] / 2)
    shared = np.clip(high - low, 0, None).prod(1)
    return np.asarray(shared / np.maximum(boxes[:, 3:].prod(1), 1e-9), np.float32)
