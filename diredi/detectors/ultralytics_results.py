"""Detections as Ultralytics' own `Results`, for its plots and exports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from ultralytics.engine.results import Results

from diredi.detectors.predictor import Image


def results_of(table: NDArray[np.float32], image: Image, names: Sequence[str], path: str) -> Results:
    """Return the result of one image.

    Args:
        table: n x 6: x1, y1, x2, y2, score, class.
        image: The image.
        names: Class names in the order of their ids.
        path: Where the image came from.
    """
    return Results(orig_img=image, path=path, names=dict(enumerate(names)), boxes=table)
