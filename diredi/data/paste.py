"""Cut objects out of images and paste them into others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi.data.yolo import Boxes
from diredi.detectors.predictor import Image

SMALLEST = 12
"""The shortest side of a crop, in pixels."""
HIDDEN = 0.6
"""A box is dropped if a larger share of it is covered."""
_MARGIN = 0.06  # of the box, around it: the soft edge
_ZOOM = 0.2


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of an image with one object in it."""

    pixels: Image
    """uint8 [height, width, 3], BGR."""
    kind: int
    """Class id."""
    ground: float
    """The lower edge of its box as a share of the image's height, 0 to 1: distant objects stand higher."""
    height: float
    """Height of the crop as a share of the image's height, 0 to 1."""


def cut_out(image: Image, box: NDArray[np.float32] | Sequence[float], kind: int) -> Crop | None:
    """Cut an object out of an image.

    Args:
        image: uint8 [height, width, 3], BGR.
        box: x1, y1, x2, y2 in pixels.
        kind: Class id of the object.

    Returns:
        The crop; None if the object is very small or touches the edge of the image.
    """
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
    """Paste a crop into an image, at about the height and the size that it had.

    The edge of the crop is soft, and its brightness moves half of the way to that of its new place.

    Args:
        image: uint8 [height, width, 3], BGR; not changed.
        boxes: Boxes of the image, as in a `Sample`.
        crop: The object.
        rng: Source of randomness for place, size and mirroring.

    Returns:
        The new image, and the boxes that are still visible with that of the crop.
    """
    height, width = image.shape[:2]
    zoom = 1 + _ZOOM * rng.uniform(-1, 1)
    tall = int(np.clip(crop.height * height * zoom, 4, height))
    wide = int(np.clip(crop.pixels.shape[1] * tall / crop.pixels.shape[0], 4, width))
    scaled = cv2.resize(crop.pixels, (wide, tall), interpolation=cv2.INTER_AREA).astype(np.float32)
    scaled = scaled[:, ::-1] if rng.random() < 0.5 else scaled
    left = int(rng.integers(0, width - wide + 1))
    top = int(np.clip((crop.ground + 0.05 * rng.uniform(-1, 1)) * height - tall, 0, height - tall))
    background = image[top : top + tall, left : left + wide].astype(np.float32)
    scaled = scaled * (1 + (background.mean() + 1) / (scaled.mean() + 1)) / 2
    mask = _soft_mask(tall, wide)
    result = image.copy()
    result[top : top + tall, left : left + wide] = np.clip(background * (1 - mask) + scaled * mask + 0.5, 0, 255)
    inner = 1 / (1 + 2 * _MARGIN)
    centre = (left + wide / 2) / width, (top + tall / 2) / height
    pasted = np.array([[crop.kind, *centre, wide * inner / width, tall * inner / height]], np.float32)
    return result, np.concatenate([boxes[_covered_share(boxes, pasted[0]) < HIDDEN], pasted])


def _soft_mask(tall: int, wide: int) -> NDArray[np.float32]:
    """Create a mask, [tall, wide, 1], that is 1 inside and falls to 0 across the margin."""
    down, across = (np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) / max(n * _MARGIN, 1) for n in (tall, wide))
    return np.asarray(np.clip(np.minimum(down[:, None], across[None]), 0, 1), np.float32)[..., None]


def _covered_share(boxes: Boxes, other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the share of each box that `other` covers."""
    low = np.maximum(boxes[:, 1:3] - boxes[:, 3:] / 2, other[1:3] - other[3:] / 2)
    high = np.minimum(boxes[:, 1:3] + boxes[:, 3:] / 2, other[1:3] + other[3:] / 2)
    shared = np.clip(high - low, 0, None).prod(1)
    return np.asarray(shared / np.maximum(boxes[:, 3:].prod(1), 1e-9), np.float32)
