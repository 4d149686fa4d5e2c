"""Feature distillation: squared error where the teacher is sure that something is there.

The idea of Ultralytics' own distillation (`distill_model` of its trainer): neck features, not answers, weighted by the
teacher's best class score at each cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diredi.distillation.losses.base import DistillationBatch, FeatureLoss

GAIN = 6.0
"""Ultralytics' default weight (`dis`)."""


class ScoredFeatures(FeatureLoss):
    """Sum over the levels of the weighted mean of the squared error.

    The weight is the best score among the classes that the teacher may teach; Ultralytics takes all of its classes, and
    projects through two layers.
    """

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        maps = self.maps(lesson)
        weights = torch.split(lesson.certainty, [mine.shape[-2] * mine.shape[-1] for mine, _ in maps], 1)
        return GAIN * torch.stack([_error(*pair, weight) for pair, weight in zip(maps, weights, strict=True)]).sum()


def _error(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    error = (student - teacher).square().mean(1).flatten(1)
    return (error * weight).sum() / weight.sum().clamp(min=1e-6)
