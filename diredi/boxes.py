"""Geometry of axis-aligned boxes, with numpy alone."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

FloatT = TypeVar("FloatT", np.float32, np.float64)


def box_iou(box: NDArray[FloatT], others: NDArray[FloatT]) -> NDArray[FloatT]:
    """Compute the intersection over union (IoU) of one box with others.

    Args:
        box: x1, y1, x2, y2; float32 or float64 [4].
        others: Boxes in the same form and dtype, [n, 4].

    Returns:
        IoU with each of the others, 0 to 1, [n]; 0 where both boxes have no area.

    Examples:
        >>> box_iou(np.array([0.0, 0.0, 2.0, 2.0]), np.array([[0.0, 0.0, 2.0, 1.0], [3.0, 3.0, 4.0, 4.0]])).tolist()
        [0.5, 0.0]
    """
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared
    iou: NDArray[FloatT] = shared / np.maximum(union, 1e-12)
    return iou
