"""Response distillation: class scores, and where the teacher sees the sides of a box."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diredi.distillation.losses.base import Lesson, Loss

CLASS_GAIN = 0.5
BOX_GAIN = 1.5
"""The gains of the detection loss' own terms, so that a weight of 1 means "as much as the labels"."""


class ClassScores(Loss):
    """Binary cross-entropy with the teacher's soft scores, less the teacher's own entropy.

    As in the detection loss, the sum over all anchors is divided by the sum of the soft targets.
    """

    def forward(self, lesson: Lesson) -> Tensor:
        wanted = lesson.taught_scores()
        logits = lesson.student.class_logits.index_select(-1, lesson.student_ids).float()
        weight = lesson.weight_of_anchors(wanted)
        divergence = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") - _entropy(wanted)
        if lesson.confidence > 0:
            divergence = divergence * (weight > 0).unsqueeze(-1)
        return CLASS_GAIN * divergence.sum() / weight.sum().clamp(min=1)


def _entropy(p: Tensor) -> Tensor:
    return F.binary_cross_entropy(p, p, reduction="none")


class BoxDistributions(Loss):
    """Localisation distillation: the student's distribution of each side of a box against the teacher's.

    Kullback-Leibler divergence where both have the same bins (Zheng et al., "Localization Distillation for Dense Object
    Detection", CVPR 2022); otherwise 1 - IoU of the two expected boxes. Each anchor weighs as much as the teacher is
    sure that an object is there.
    """

    def forward(self, lesson: Lesson) -> Tensor:
        weight = lesson.weight_of_anchors(lesson.taught_scores())
        anchors = (weight > 0.01).nonzero(as_tuple=True)
        mine, theirs = lesson.student.box_logits[anchors].float(), lesson.teacher.box_logits[anchors].float()
        same_bins = mine.shape[-1] == theirs.shape[-1] > 1
        distance = _divergence(mine, theirs) if same_bins else 1 - _overlap(_distances(mine), _distances(theirs))
        return BOX_GAIN * (distance * weight[anchors]).sum() / weight.sum().clamp(min=1)


def _divergence(mine: Tensor, theirs: Tensor) -> Tensor:
    """n x 4 x r twice: Kullback-Leibler divergence, mean over the four sides."""
    wanted = theirs.log_softmax(-1)
    return F.kl_div(mine.log_softmax(-1), wanted, reduction="none", log_target=True).sum(-1).mean(-1)


def _distances(logits: Tensor) -> Tensor:
    if logits.shape[-1] == 1:
        return logits[..., 0]
    return logits.softmax(-1) @ torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)


def _overlap(mine: Tensor, theirs: Tensor) -> Tensor:
    """IoU of boxes around the same anchors, from their n x 4 distances (left, top, right, bottom)."""
    mine, theirs = mine.clamp(min=0), theirs.clamp(min=0)
    sides = torch.minimum(mine, theirs)
    shared = (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])
    return shared / (_area(mine) + _area(theirs) - shared + 1e-6)


def _area(distances: Tensor) -> Tensor:
    return (distances[:, 0] + distances[:, 2]) * (distances[:, 1] + distances[:, 3])
