"""What a distillation loss is given, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diredi.detectors.base import Outputs, Targets


@dataclass(frozen=True)
class Lesson:
    """One batch as two detectors saw it, on the same grid of anchors.

    `student_ids[i]` and `teacher_ids[i]` are the ids of the same class in the two label spaces: the classes that may be
    taught. Whatever stands outside them is none of the teacher's business: a teacher that has never seen a class would
    otherwise teach that it is background.

    `targets` are the labels, none at all where the recipe gives labels no weight. `detection_loss` is the student's own
    loss of these outputs on other targets.
    """

    student: Outputs
    teacher: Outputs
    targets: Targets
    student_ids: Tensor
    teacher_ids: Tensor
    detection_loss: Callable[[Targets], Tensor]
    confidence: float = 0.0
    temperature: float = 1.0

    def taught_scores(self) -> Tensor:
        """batch x a x taught classes, the teacher's probabilities."""
        return self.teacher.class_logits.index_select(-1, self.teacher_ids).float().sigmoid()

    def weight_of_anchors(self, scores: Tensor) -> Tensor:
        """batch x a: how sure the teacher is that something is there; 0 where it is less sure than `confidence`."""
        best = scores.amax(-1)
        return torch.where(best >= self.confidence, best, torch.zeros_like(best))


class Loss(nn.Module):
    """A distillation loss. Its parameters, if any, learn with the student and belong to no detector, so to no gap."""

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        """`*_channels`: of the neck's maps, large maps first. Raises InvalidInput when the loss cannot join the two."""
        super().__init__()

    def forward(self, lesson: Lesson) -> Tensor:
        """A scalar, 0 when the student answers as the teacher does."""
        raise NotImplementedError
