"""Response distillation: class scores, where the teacher sees the sides of a box, and its boxes as labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from diredi.distillation.dissimilarity import MEASURES, kl_of_logits
from diredi.distillation.losses.base import DistillationBatch, Loss
from diredi.distillation.losses.boxes import expected_distances

CLASS_GAIN = 0.5
BOX_GAIN = 1.5
LOGIT_GAIN = 0.1
"""The gains of the detection loss' own terms, so that a weight of 1 means "as much as the labels"."""
SLOWNESS: Final[dict[str, float]] = {"ce": 1, "kl": 1, "td": 2, "js": 4, "sed": 4, "msed": 4}
"""How many times smaller than Kullback-Leibler's each gradient is near equality: made up for, so that a weight of 1
means as much with one measure as with another."""


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


class Logits(Loss):
    """Squared error of the class logits, the mean over all anchors and taught classes.

    Ba, Caruana: "Do Deep Nets Really Need to be Deep?", NIPS 2014, arXiv 1312.6184, equation 2. All scores near 0 are
    alike to a cross-entropy. Their logits are not: they tell which of two places looks more like a class that neither
    of them shows.
    """

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        mine, theirs = lesson.taught_logits()
        error = (mine - theirs).square()
        if lesson.silent is not None:
            error = error * lesson.silent.unsqueeze(1)
        if lesson.confidence > 0:
            error = error * (lesson.certainty > 0).unsqueeze(-1)
        return LOGIT_GAIN * error.mean()


class ClassScores(ScoreLoss):
    """Binary cross-entropy with the teacher's soft scores, less the teacher's own entropy; heeds no temperature.

    The same number as the dissimilarity `kl` at temperature 1, from logits: quicker, and exact however sure both are.
    """

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """See `ScoreLoss.divergence`."""
        wanted = teacher.sigmoid()
        cross_entropy = F.binary_cross_entropy_with_logits(student, wanted, reduction="none")
        return cross_entropy - F.binary_cross_entropy(wanted, wanted, reduction="none")


class Dissimilarity(ScoreLoss):
    """One measure between the two detectors' scores, less what it is where they agree.

    A detector scores each class by itself, so each score s is a vector of two outcomes, (s, 1 - s). Both logits are
    divided by the temperature first, and the loss is multiplied by its square (Hinton, Vinyals, Dean: "Distilling the
    Knowledge in a Neural Network", 2015), so that the pace does not change with it.
    """

    def __init__(self, measure: str, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__(student_channels, teacher_channels)
        self.measure, self.gain = MEASURES[measure], SLOWNESS[measure]

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """See `ScoreLoss.divergence`."""
        p, q = _outcomes(student / temperature), _outcomes(teacher / temperature)
        return self.gain * temperature**2 * (self.measure(p, q) - self.measure(q, q))


def _outcomes(logits: Tensor) -> Tensor:
    return torch.stack([logits.sigmoid(), (-logits).sigmoid()], -1)


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


class PseudoLabels(Loss):
    """The student's own loss on what the teacher finds: boxes of a score of 0.45 or more, after suppression at 0.60.

    How sure the teacher was is forgotten. A teacher that finds nothing teaches that there is nothing of its classes,
    and about classes that it does not know it says nothing. Never 0, as the detection loss is not.

    Molo, Carlini, Ciampi, Gennaro, Vadicamo: "Teacher-Student Models for AI Vision at the Edge: A Car Parking Case
    Study", VISAPP 2024. Their loss is alpha * labels + (1 - alpha) * teacher: `label_weight` alpha and a weight of
    1 - alpha here.
    """

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        return lesson.detection_loss(lesson.teacher_boxes)
