"""What two detectors might have said, without any detector."""

from __future__ import annotations

import torch

from diredi.detectors.base import Outputs, Targets
from diredi.detectors.postprocess import grid
from diredi.distillation.losses import LOSSES, DistillationBatch

TARGETS = Targets(
    torch.tensor([0, 1, 1]),
    torch.tensor([0, 1, 2]),
    torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.1, 0.2], [0.7, 0.6, 0.5, 0.3]]),
)
NOTHING = Targets.none(torch.device("cpu"))


def outputs(seed: int, classes: int = 3, bins: int = 16, channels: tuple[int, ...] = (8, 8, 8)) -> Outputs:
    """What a detector with an opinion about everything would say of two images of 64 pixels."""
    random = torch.Generator().manual_seed(seed)
    anchors, strides = (torch.from_numpy(part) for part in grid(64, (8, 16, 32)))
    sides = (8, 4, 2, 1)[: len(channels)]
    return Outputs(
        class_logits=torch.randn(2, 84, classes, generator=random) * 2 - 2,
        box_logits=torch.randn(2, 84, 4, bins, generator=random).abs() * 2,
        anchors=anchors,
        strides=strides,
        features=tuple(torch.randn(2, c, s, s, generator=random) for c, s in zip(channels, sides, strict=True)),
    )


def lesson(student: Outputs, teacher: Outputs, ids=((0, 1, 2), (0, 1, 2)), **changes) -> DistillationBatch:
    taught = {"student_ids": torch.tensor(ids[0]), "teacher_ids": torch.tensor(ids[1])}
    return DistillationBatch(student, teacher, **{"targets": TARGETS, **taught, "detection_loss": _no_loss, **changes})


def _no_loss(targets: Targets) -> torch.Tensor:
    raise AssertionError("only pseudo-labels need the detection loss")


def built(name: str, student: Outputs, teacher: Outputs):
    return LOSSES[name]([f.shape[1] for f in student.features], [f.shape[1] for f in teacher.features])


def one_box(sure: float) -> Outputs:
    """Anchor 17, at (12, 20), sees a box of class 1 two strides to each side; its neighbour sees the same box."""
    said = outputs(0, bins=1)
    said.class_logits.fill_(-20.0)
    said.class_logits[1, 17, 1], said.class_logits[1, 18, 1] = sure, sure - 0.1
    said.box_logits[1, 17, :, 0] = 2.0
    said.box_logits[1, 18, :, 0] = torch.tensor([3.0, 2, 1, 2])
    return said
