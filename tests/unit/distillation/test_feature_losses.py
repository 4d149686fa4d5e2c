"""What is particular to losses on features and on relations among objects."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from answers import NOTHING, TARGETS, built, lesson, one_box, outputs

from diredi.detectors.base import Targets
from diredi.distillation.losses import LOSSES
from diredi.distillation.losses.base import FeatureLoss
from diredi.distillation.losses.boxes import cells
from diredi.distillation.losses.features import ScoredFeatures
from diredi.distillation.losses.fgd import FocalGlobal, attention, masks
from diredi.distillation.losses.relation import MOST_OBJECTS, features_of
from diredi.errors import InvalidInput

FEATURES = sorted(name for name, make in LOSSES.items() if isinstance(make, type) and issubclass(make, FeatureLoss))


@pytest.mark.parametrize("name", FEATURES)
def test_necks_of_different_depth_cannot_be_joined_and_of_different_width_can(name):
    with pytest.raises(InvalidInput, match="neck levels"):
        LOSSES[name]([8, 8], [8, 8, 8])
    student, teacher = outputs(0, channels=(4, 8, 16)), outputs(1, channels=(8, 8, 8))
    loss = built(name, student, teacher)
    loss(lesson(student, teacher)).backward()
    assert loss.projectors[0].weight.grad.abs().sum() > 0
    assert not list(loss.projectors[1].parameters()), "equal widths are compared as they are"


def test_channel_wise_distillation_heeds_where_a_channel_is_strong_and_not_what_it_adds_everywhere():
    student, teacher = outputs(0), outputs(0)
    loss = built("cwd", student, teacher)
    louder = replace(student, features=tuple(f + 3.0 for f in student.features))
    moved = replace(student, features=tuple(f.roll(1, -1) for f in student.features))
    assert loss(lesson(louder, teacher)).item() == pytest.approx(0, abs=1e-4)
    assert loss(lesson(moved, teacher)) > 1


def test_hints_tell_how_a_teacher_looks_at_places_where_it_finds_nothing():
    student, teacher = outputs(0), outputs(1)
    unsure = replace(teacher, class_logits=torch.full_like(teacher.class_logits, -20.0))
    loss = built("hints", student, teacher)
    value = loss(lesson(student, unsure)).item()
    assert value > 1
    louder = [replace(one, features=tuple(10 * f for f in one.features)) for one in (student, unsure)]
    assert loss(lesson(*louder)).item() == pytest.approx(value, rel=1e-4), "a loss has no unit"


def test_scored_features_weigh_an_error_by_what_the_teacher_sees_there():
    teacher = one_box(2.0)
    loss = ScoredFeatures([8, 8, 8], [8, 8, 8])
    values = []
    for y, x in ((2, 1), (6, 6)):  # anchor 17 stands at row 2, column 1
        changed = teacher.features[0].clone()
        changed[1, :, y, x] += 2
        student = replace(teacher, features=(changed, *teacher.features[1:]))
        values.append(loss(lesson(student, teacher)).item())
    assert values[0] > 1
    assert values[1] < 1e-6


def test_features_of_an_object_are_the_mean_under_its_box():
    maps = torch.randn(2, 5, 8, 4, generator=torch.Generator().manual_seed(0))
    low, high = cells(TARGETS.boxes, width=4, height=8)
    expected = [
        maps[image, :, top:bottom, left:right].mean((1, 2))
        for image, (left, top), (right, bottom) in zip(TARGETS.image_index, low, high, strict=True)
    ]
    assert torch.allclose(features_of(TARGETS, [maps, maps]), torch.stack(expected).repeat(1, 2), atol=1e-5)


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [1, 1, 0, 0], [0.5, 0.5, 2, 2], [0.999, 0.001, 0.1, 0.1]])
def test_every_box_covers_a_cell_and_none_outside(box):
    low, high = cells(torch.tensor([box], dtype=torch.float32), width=4, height=6)
    assert (low >= 0).all()
    assert (high > low).all()
    assert (high <= torch.tensor([4, 6])).all()


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
def test_relations_do_not_change_when_feature_space_is_turned_grown_or_moved(name):
    student, teacher = outputs(0), outputs(0)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))[0]
    same = tuple(3 * torch.einsum("bchw,cd->bdhw", f, turn) + 7 for f in student.features)
    loss = built(name, student, teacher)
    assert loss(lesson(replace(student, features=same), teacher)).item() == pytest.approx(0, abs=1e-4)
    assert loss(lesson(outputs(1), teacher)) > 0.01


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
@pytest.mark.parametrize("boxes", [0, 1, 2, 3, MOST_OBJECTS + 30])
def test_relations_of_any_number_of_objects(name, boxes):
    student, teacher = outputs(0), one_box(-3.0)
    for level in student.features:
        level.requires_grad_()
    random = torch.Generator().manual_seed(boxes)
    places = torch.rand(boxes, 4, generator=random) * 0.5 + 0.2
    targets = Targets(torch.arange(boxes) % 2, torch.zeros(boxes, dtype=torch.long), places)
    value = built(name, student, teacher)(lesson(student, teacher, targets=targets))
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(level.grad).all() for level in student.features)
    assert (value > 1e-6) == (boxes > 2)


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
def test_relations_among_objects_that_look_alike_have_a_finite_gradient(name):
    student, teacher = outputs(0), outputs(1)
    for level in student.features:
        level.requires_grad_()
    three = Targets(torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long), TARGETS.boxes[:1].expand(3, 4))
    built(name, student, teacher)(lesson(student, teacher, targets=three)).backward()
    assert all(torch.isfinite(level.grad).all() for level in student.features)


def test_without_labels_the_teachers_boxes_say_where_objects_are():
    student, teacher = outputs(1), one_box(2.0)
    assert lesson(student, teacher).objects is TARGETS
    assert len(lesson(student, teacher, targets=NOTHING).objects.boxes) == 1


def test_feature_distillation_finds_the_labelled_cells():
    foreground, background = masks(TARGETS, 2, 8, 8)
    assert foreground[0, 0, 2:6, 2:6].eq(1 / 16).all()
    assert foreground[0].count_nonzero() == 16
    assert foreground[1, 0, :3].nonzero()[:, 0].unique().tolist() == [1, 2], "rows are height"
    assert foreground[1, 0, :3].nonzero()[:, 1].unique().tolist() == [1, 2]
    assert background.sum((1, 2, 3)).tolist() == pytest.approx([1, 1])
    assert (foreground * background).sum() == 0


def test_a_cell_under_two_boxes_counts_for_the_smaller():
    both = Targets(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([[0.5, 0.5, 1, 1], [0.5, 0.5, 0.25, 0.25]]))
    foreground, _ = masks(both, 1, 8, 8)
    assert foreground[0, 0, 4, 4] == 1 / 4
    assert foreground[0, 0, 0, 0] == 1 / 64


def test_an_image_without_boxes_is_all_background():
    foreground, background = masks(NOTHING, 2, 4, 4)
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
    flat = replace(outputs(0), features=tuple(torch.zeros_like(level) for level in outputs(0).features))
    student, teacher = flat, flat
    loss = FocalGlobal([8, 8, 8], [8, 8, 8])
    on_object, on_ground = student.features[0].clone(), student.features[0].clone()
    on_object[0, :, 3, 3] += 2
    on_ground[0, :, 0, 7] += 2
    values = [
        loss(lesson(replace(student, features=(changed, *student.features[1:])), teacher)).item()
        for changed in (on_object, on_ground)
    ]
    assert values[0] > values[1]
