"""What a distillation loss is given, and what it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from diredi.detectors.base import Outputs, Targets
from diredi.distillation.losses.boxes import found
from diredi.errors import InvalidInput

PSEUDO_CONFIDENCE = 0.45
PSEUDO_OVERLAP = 0.60
"""Which of the teacher's boxes stand for objects: the thresholds of Molo et al. (see `PseudoLabels`)."""


@dataclass(frozen=True)
class DistillationBatch:
    """What a distillation loss is given: one batch as two detectors saw it, on the same grid of anchors.

    Only classes that both detectors know by name are taught (`taught_logits`): a teacher that has never seen a class
    would otherwise teach that it is background.
    """

    student: Outputs
    """The student's outputs, with gradients."""
    teacher: Outputs
    """The teacher's outputs, without."""
    targets: Targets
    """The labels; none at all where the recipe gives labels no weight."""
    student_ids: Tensor
    """int64 [taught classes]: their ids in the student's label space."""
    teacher_ids: Tensor
    """int64 [taught classes]: ids of the same classes in the teacher's."""
    detection_loss: Callable[[Targets], Tensor]
    """The student's own loss of these outputs on other targets."""
    confidence: float = 0.0
    """`teacher_confidence` of the recipe."""
    temperature: float = 1.0
    """`temperature` of the recipe."""
    silent: Tensor | None = None
    """float32 [batch, taught classes], 1 where no label speaks of the class, so that the teacher may. None: it always
    may."""

    def taught_logits(self) -> tuple[Tensor, Tensor]:
        """Return the student's and the teacher's class logits, each float32 [batch, anchors, taught classes]."""
        mine = self.student.class_logits.index_select(-1, self.student_ids)
        return mine, self.teacher.class_logits.index_select(-1, self.teacher_ids)

    @cached_property
    def certainty(self) -> Tensor:
        """float32 [batch, anchors]: how sure the teacher is of an object; 0 where less than `confidence`."""
        scores = self.taught_logits()[1].sigmoid()
        best = (scores if self.silent is None else scores * self.silent.unsqueeze(1)).amax(-1)
        return torch.where(best >= self.confidence, best, torch.zeros_like(best))

    @cached_property
    def teacher_boxes(self) -> Targets:
        """What the teacher finds, with the student's ids; classes that it does not know are unlabelled, not absent.

        Its boxes are those of at least `confidence`, or of PSEUDO_CONFIDENCE where the recipe sets none.
        """
        boxes = found(self.teacher, self.teacher_ids, self.confidence or PSEUDO_CONFIDENCE, PSEUDO_OVERLAP)
        images, _, classes = self.student.class_logits.shape
        silent = torch.ones(images, len(self.student_ids)) if self.silent is None else self.silent
        labelled = torch.zeros(images, classes, device=boxes.boxes.device)
        labelled[:, self.student_ids] = silent.to(labelled)
        kept = labelled[boxes.image_index, self.student_ids[boxes.classes]] > 0
        classes_kept = self.student_ids[boxes.classes[kept]]
        return Targets(boxes.image_index[kept], classes_kept, boxes.boxes[kept], labelled)

    @property
    def objects(self) -> Targets:
        """Where the objects are: the labels, or what the teacher finds on a batch without any."""
        return self.targets if len(self.targets.boxes) else self.teacher_boxes


class Loss(nn.Module, ABC):
    """A distillation loss. Subclass it, put it into `LOSSES` under a name, and name it in a `TrainRecipe`.

    Its parameters, if any, learn with the student and belong to no detector, so to no gap.

    Args:
        student_channels: Channels of the student's neck, a number for each level, large maps first.
        teacher_channels: Channels of the teacher's neck.

    Raises:
        InvalidInput: The loss cannot compare the two.

    Example:
        >>> import diredi
        >>> class Apart(diredi.Loss):
        ...     def forward(self, lesson):
        ...         mine, theirs = lesson.taught_logits()
        ...         return (mine.sigmoid() - theirs.sigmoid()).square().sum() / lesson.certainty.sum().clamp(min=1)
        >>> diredi.LOSSES["apart"] = Apart
        >>> recipe = diredi.TrainRecipe(losses={"apart": 2.0})
        >>> del diredi.LOSSES["apart"]
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Compare the student with the teacher on one batch.

        Args:
            lesson: The batch.

        Returns:
            A scalar with gradients, 0 where the student answers as the teacher does.
        """


class FeatureLoss(Loss):
    """Compares the necks' maps, level by level.

    Where a student's map has other channels than its teacher's, a 1x1 convolution leads from one to the other. It lives
    here, beside the detectors, and is thrown away after training.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__(student_channels, teacher_channels)
        if len(student_channels) != len(teacher_channels):
            raise InvalidInput(
                f"feature distillation needs as many neck levels in the student ({len(student_channels)}) as in the "
                f"teacher ({len(teacher_channels)}): leave losses that compare features out of the recipe"
            )
        pairs = zip(student_channels, teacher_channels, strict=True)
        self.projectors = nn.ModuleList(nn.Identity() if s == t else nn.Conv2d(s, t, 1) for s, t in pairs)

    def maps(self, lesson: DistillationBatch) -> list[tuple[Tensor, Tensor]]:
        """The student's projected map and the teacher's of each level, both fp32, of equal shape."""
        levels = zip(self.projectors, lesson.student.features, lesson.teacher.features, strict=True)
        return [(projector(mine.float()), theirs.float()) for projector, mine, theirs in levels]
