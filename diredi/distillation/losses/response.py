"""Response distillation: class scores, and where the teacher sees the sides of a box."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from diredi.distillation.dissimilarity import kl_of_logits
from diredi.distillation.losses.base import DistillationBatch, Loss
from diredi.distillation.losses.boxes import expected_distances

CLASS_GAIN = 0.5
BOX_GAIN = 1.5
"""The gains of the detection loss' own terms, so that a weight of 1 means "as much as the labels"."""


class ScoreLoss(Loss):
    """Compares scores class by class and anchor by anchor; each kind says how unlike two of them are."""

    @abstractmethod
    def divergence(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Batch x a x taught classes, from logits of that shape; 0 where they are equal."""

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """As in the detection loss, the sum over all anchors is divided by the sum of the soft targets."""
        divergence = self.divergence(*lesson.taught_logits(), lesson.temperature)
        if lesson.silent is not None:
            divergence = divergence * lesson.silent.unsqueeze(1)
        if lesson.confidence > 0:
            divergence = divergence * (lesson.certainty > 0).unsqueeze(-1)
        return CLASS_GAIN * divergence.sum() / lesson.certainty.sum().clamp(min=1)


class ClassScores(ScoreLoss):
    """Binary cross-entropy with the teacher's soft scores, less the teacher's own entropy; heeds no temperature.

    The same number as the dissimilarity `kl` at temperature 1, from logits: quicker, and exact however sure both are.
    """

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """See `ScoreLoss.divergence`."""
        wanted = teacher.sigmoid()
        return F.binary_cross_entropy_with_logits(student, wanted, reduction="none") - _entropy(wanted)


def _entropy(p: Tensor) -> Tensor:
    return F.binary_cross_entropy(p, p, reduction="none")


class BoxDistributions(Loss):
    """Localisation distillation: the student's distribution of each side of a box against the teacher's.

    Kullback-Leibler divergence where both have the same bins (Zheng et al., "Localization Distillation for Dense Object
    Detection", CVPR 2022); otherwise 1 - IoU of the two expected boxes. Each anchor weighs as much as the teacher is
    sure that an object is there.
    """

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        weight = lesson.certainty
        anchors = (weight > 0.01).nonzero(as_tuple=True)
        mine, theirs = lesson.student.box_logits[anchors], lesson.teacher.box_logits[anchors]
        if mine.shape[-1] == theirs.shape[-1] > 1:
            distance = kl_of_logits(mine, theirs).mean(-1)
        else:
            distance = 1 - _overlap(expected_distances(mine), expected_distances(theirs))
        return BOX_GAIN * (distance * weight[anchors]).sum() / weight.sum().clamp(min=1)


def _overlap(mine: Tensor, theirs: Tensor) -> Tensor:
    """IoU of boxes around the same anchors, from their n x 4 distances (left, top, right, bottom)."""
    mine, theirs = mine.clamp(min=0), theirs.clamp(min=0)
    sides = torch.minimum(mine, theirs)
    shared = (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])
    return shared / (_area(mine) + _area(theirs) - shared + 1e-6)


def _area(distances: Tensor) -> Tensor:
    return (distances[:, 0] + distances[:, 2]) * (distances[:, 1] + distances[:, 3])
