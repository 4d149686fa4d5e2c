"""Feature distillation: the maps of the two necks, compared everywhere, by channel or where the teacher is sure.

`fgd` is a third way, in a file of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diredi.distillation.dissimilarity import kl_of_logits
from diredi.distillation.losses.base import DistillationBatch, FeatureLoss

CWD_GAIN = 5.0
"""As in the authors' configurations for detectors, whose temperature is 1."""
SCORED_GAIN = 6.0
"""Ultralytics' default weight (`dis`)."""


class Hints(FeatureLoss):
    """Squared error of the maps at every place, in units of the teacher's own variance, summed over the levels.

    Romero, Ballas, Kahou, Chassang, Gatta, Bengio: "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550,
    equation 3. What a teacher makes of an image that shows nothing it knows still tells how it looks at things, so a
    student learns from it a class that no image shows.
    """

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        errors = [(mine - theirs).square().mean() / theirs.var().clamp(min=1e-6) for mine, theirs in self.maps(lesson)]
        return torch.stack(errors).sum()


class ChannelWise(FeatureLoss):
    """Where each channel looks: its map as a distribution over all places, the student's against the teacher's.

    Channel-wise distillation (CWD). Shu, Liu, Gao, Yan, Shen: "Channel-wise Knowledge Distillation for Dense
    Prediction", ICCV 2021, arXiv 2011.13256.

    Equations 3 and 4 at temperature 1: the mean over channels of the Kullback-Leibler divergence. A channel's strong
    places, where objects are, count most; what it adds to all places alike does not count.
    """

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        levels = [kl_of_logits(mine.flatten(2), theirs.flatten(2)).mean() for mine, theirs in self.maps(lesson)]
        return CWD_GAIN * torch.stack(levels).sum()


class ScoredFeatures(FeatureLoss):
    """Sum over the levels of the weighted mean of the squared error.

    The idea of Ultralytics' own distillation (`distill_model` of its trainer): neck features, not answers. The weight
    is the best score at each cell among the classes that the teacher may teach; Ultralytics takes all of its classes,
    and projects through two layers.
    """

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        maps = self.maps(lesson)
        weights = torch.split(lesson.certainty, [mine.shape[-2] * mine.shape[-1] for mine, _ in maps], 1)
        levels = [_error(*pair, weight) for pair, weight in zip(maps, weights, strict=True)]
        return SCORED_GAIN * torch.stack(levels).sum()


def _error(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    error = (student - teacher).square().mean(1).flatten(1)
    return (error * weight).sum() / weight.sum().clamp(min=1e-6)
