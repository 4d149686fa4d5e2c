from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diredi.detectors.base import Outputs, Targets
from diredi.distillation.losses import LOSSES, FocalGlobal, Lesson
from diredi.distillation.losses.fgd import attention, masks
from diredi.errors import InvalidInput

TARGETS = Targets(
    torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.1, 0.2]])
)


def outputs(seed: int, classes: int = 3, bins: int = 16, channels: tuple[int, ...] = (8, 8)) -> Outputs:
    random = torch.Generator().manual_seed(seed)
    maps = tuple(torch.randn(2, c, s, s, generator=random) for c, s in zip(channels, (8, 4), strict=True))
    return Outputs(
        class_logits=torch.randn(2, 80, classes, generator=random) * 2 - 2,
        box_logits=torch.randn(2, 80, 4, bins, generator=random).abs() * 2,
        anchors=torch.zeros(80, 2),
        strides=torch.ones(80),
        features=maps,
    )


def lesson(student: Outputs, teacher: Outputs, ids=((0, 1, 2), (0, 1, 2)), confidence: float = 0.0) -> Lesson:
    return Lesson(
        student, teacher, TARGETS, torch.tensor(ids[0]), torch.tensor(ids[1]), lambda _: torch.zeros(()), confidence
    )


def built(name: str, student: Outputs, teacher: Outputs):
    return LOSSES[name]([f.shape[1] for f in student.features], [f.shape[1] for f in teacher.features])


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("bins", [(16, 16), (1, 1), (16, 1), (1, 16)])
def test_every_loss_is_a_finite_scalar_with_a_gradient(name, bins):
    student, teacher = outputs(0, bins=bins[0], channels=(8, 16)), outputs(1, bins=bins[1], channels=(12, 16))
    leaves = [student.class_logits, student.box_logits, *student.features]
    for leaf in leaves:
        leaf.requires_grad_()
    value = built(name, student, teacher)(lesson(student, teacher))
    value.backward()
    assert value.ndim == 0
    assert torch.isfinite(value)
    assert value > 0
    assert any(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_is_zero_for_a_student_that_answers_as_its_teacher(name):
    same = outputs(0)
    assert built(name, same, same)(lesson(same, same)).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_falls_as_the_student_follows_it(name):
    student, teacher = outputs(0), outputs(1)
    parts = [student.class_logits, student.box_logits, *student.features]
    leaves = [part.clone().requires_grad_() for part in parts]
    loss = built(name, student, teacher)
    optimizer = torch.optim.Adam([*leaves, *loss.parameters()], lr=0.05)
    seen = []
    for _ in range(40):
        now = replace(student, class_logits=leaves[0], box_logits=leaves[1], features=tuple(leaves[2:]))
        value = loss(lesson(now, teacher))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert seen[-1] < 0.7 * seen[0]


def test_classes_that_are_not_taught_get_no_gradient():
    student, teacher = outputs(0, classes=4), outputs(1, classes=3)
    student.class_logits.requires_grad_()
    built("class_scores", student, teacher)(lesson(student, teacher, ids=((0, 2), (1, 2)))).backward()
    by_class = student.class_logits.grad.abs().sum((0, 1))
    assert by_class[[1, 3]].tolist() == [0, 0]
    assert (by_class[[0, 2]] > 0).all()


def test_classes_are_matched_by_the_ids_given():
    student, teacher = outputs(0), outputs(1)
    swapped = replace(teacher, class_logits=teacher.class_logits[..., [2, 0, 1]])
    loss = built("class_scores", student, teacher)
    straight = loss(lesson(student, teacher))
    assert loss(lesson(student, swapped, ids=((0, 1, 2), (1, 2, 0)))) == pytest.approx(straight.item())


@pytest.mark.parametrize("name", ["class_scores", "boxes"])
def test_a_teacher_that_is_not_confident_says_nothing(name):
    student, teacher = outputs(0), outputs(1)
    teacher.class_logits.fill_(-6)
    assert built(name, student, teacher)(lesson(student, teacher, confidence=0.5)) == 0


def test_feature_distillation_finds_the_labelled_cells():
    foreground, background = masks(TARGETS, 2, 8, 8)
    assert foreground[0, 0, 2:6, 2:6].eq(1 / 16).all()
    assert foreground[0].count_nonzero() == 16
    assert foreground[1, 0].nonzero()[:, 0].unique().tolist() == [1, 2], "rows are height"
    assert foreground[1, 0].nonzero()[:, 1].unique().tolist() == [1, 2]
    assert background.sum((1, 2, 3)).tolist() == pytest.approx([1, 1])
    assert (foreground * background).sum() == 0


def test_a_cell_under_two_boxes_counts_for_the_smaller():
    both = Targets(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([[0.5, 0.5, 1, 1], [0.5, 0.5, 0.25, 0.25]]))
    foreground, _ = masks(both, 1, 8, 8)
    assert foreground[0, 0, 4, 4] == 1 / 4
    assert foreground[0, 0, 0, 0] == 1 / 64


def test_an_image_without_boxes_is_all_background():
    none = Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    foreground, background = masks(none, 2, 4, 4)
    assert foreground.sum() == 0
    assert background.eq(1 / 16).all()


def test_attention_is_mean_one_and_follows_strength():
    features = torch.zeros(1, 4, 3, 3)
    features[0, 2, 1, 1] = 5
    spatial, channel = attention(features)
    assert (spatial.mean().item(), channel.mean().item()) == pytest.approx((1, 1))
    assert spatial.argmax() == 4
    assert channel.argmax() == 2


def test_feature_distillation_weighs_an_error_on_an_object_more_than_on_the_ground():
    student, teacher = outputs(0), outputs(0)
    loss = FocalGlobal([8, 8], [8, 8])
    on_object, on_ground = student.features[0].clone(), student.features[0].clone()
    on_object[0, :, 3, 3] += 2
    on_ground[0, :, 0, 7] += 2
    values = [
        loss(lesson(replace(student, features=(changed, student.features[1])), teacher)).item()
        for changed in (on_object, on_ground)
    ]
    assert values[0] > values[1]


def test_necks_of_different_depth_cannot_be_joined():
    with pytest.raises(InvalidInput, match="neck levels"):
        FocalGlobal([8, 8], [8, 8, 8])
