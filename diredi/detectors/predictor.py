"""What finds boxes, seen without torch: all that evaluation and an edge node need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from diredi.labels import LabelSpace

Image = NDArray[np.uint8]
"""height x width x 3, uint8, BGR as OpenCV reads it."""


@dataclass(frozen=True)
class Detections:
    """Boxes in one image, best first. Pixels of that image."""

    boxes: NDArray[np.float32]  # n x 4: x1, y1, x2, y2
    scores: NDArray[np.float32]  # n, 0..1
    classes: NDArray[np.int64]  # n, ids of the label space

    def __len__(self) -> int:
        return len(self.scores)


class Predictor(Protocol):
    """Whatever finds boxes: a torch detector or an exported file."""

    @property
    def labels(self) -> LabelSpace: ...

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]: ...
