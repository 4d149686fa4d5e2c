"""Hard pseudo-labels: the teacher's boxes as targets of the student's ordinary loss.

Molo, Carlini, Ciampi, Gennaro, Vadicamo: "Teacher-Student Models for AI Vision at the Edge: A Car Parking Case Study",
VISAPP 2024. Their loss is alpha * labels + (1 - alpha) * teacher: `label_weight` alpha and a weight of 1 - alpha here.
"""

from __future__ import annotations

from torch import Tensor

from diredi.distillation.losses.base import DistillationBatch, Loss


class PseudoLabels(Loss):
    """The student's own loss on what the teacher finds: boxes of a score of 0.45 or more, after suppression at 0.60.

    How sure the teacher was is forgotten. A teacher that finds nothing teaches that there is nothing of its classes,
    and about classes that it does not know it says nothing. Never 0, as the detection loss is not.
    """

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        return lesson.detection_loss(lesson.teacher_boxes)
