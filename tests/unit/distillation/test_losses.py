"""One contract for every loss in LOSSES, with real detectors; then what is particular to each kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from rectangles import LABELS, recipe

from diredi.data.dataset import Sample
from diredi.detectors.base import Outputs, Targets
from diredi.detectors.postprocess import grid
from diredi.distillation.batches import Batch, Batches, Pool
from diredi.distillation.losses import LOSSES, Lesson
from diredi.distillation.losses.base import FeatureLoss
from diredi.distillation.losses.boxes import cells, found
from diredi.distillation.losses.fgd import FocalGlobal, attention, masks
from diredi.distillation.losses.relation import MOST_OBJECTS, features_of
from diredi.distillation.losses.scored_features import ScoredFeatures
from diredi.distillation.trainer import Teaching, autocast, train
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.labels import LabelSpace

EVERY = sorted(LOSSES)
OWN_LOSS = "pseudo_labels"  # the student's own loss, which no student brings to 0
FEATURES = sorted(name for name, make in LOSSES.items() if isinstance(make, type) and issubclass(make, FeatureLoss))
GROWN = LabelSpace(names=(*LABELS.names, "new"))
TARGETS = Targets(
    torch.tensor([0, 1, 1]),
    torch.tensor([0, 1, 2]),
    torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.1, 0.2], [0.7, 0.6, 0.5, 0.3]]),
)
NOTHING = Targets.none(torch.device("cpu"))


@pytest.fixture
def pictures(shapes):
    """Eight images with their labels, as the trainer would show them."""
    return next(iter(Batches([Pool(shapes[0])], recipe(steps=1), size=64, classes=3)))


def worth(name: str, student, teacher, batch: Batch, **changes: object):
    """The loss of one batch, as the trainer computes it."""
    told = recipe(losses={name: 1.0}, **changes)
    lessons = Teaching(teacher, student, told)
    with autocast(student, told):
        outputs = student.forward(batch.images)
    return lessons.terms(outputs, batch)[name][1]


def silenced(teacher, make, architecture="yolo11-w0.125"):
    """A teacher that finds nothing anywhere."""
    silent = make(architecture)
    silent.load_weights(teacher.weights())
    with torch.no_grad():
        for name, parameter in silent.module.named_parameters():
            if name in silent.class_rows() and name.endswith("bias"):
                parameter.fill_(-30.0)
    return silent


@pytest.mark.parametrize("name", EVERY)
def test_every_loss_is_a_finite_scalar_that_moves_the_student_and_not_the_teacher(name, make, teacher, pictures):
    student = make()
    teacher.module.zero_grad(set_to_none=True)
    value = worth(name, student, teacher, pictures)
    value.backward()
    assert value.ndim == 0
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert value > 0
    gradients = [p.grad for p in student.module.parameters() if p.grad is not None]
    assert sum(g.abs().sum() for g in gradients) > 0
    assert all(torch.isfinite(g).all() for g in gradients)
    assert all(p.grad is None for p in teacher.module.parameters())


@pytest.mark.parametrize("name", sorted(set(EVERY) - {OWN_LOSS}))
def test_every_loss_is_zero_for_a_student_that_answers_as_its_teacher(name, teacher, pictures):
    assert worth(name, teacher, teacher, pictures).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", EVERY)
def test_no_loss_says_a_word_about_a_class_that_the_teacher_does_not_know(name, make, teacher, pictures):
    """The trap: the new class would be taught to be background."""
    student = make(labels=GROWN)
    worth(name, student, teacher, pictures).backward()
    parameters = dict(student.module.named_parameters())
    for row in student.class_rows():
        gradient = parameters[row].grad
        assert gradient is None or gradient[3].abs().sum() == 0


@pytest.mark.parametrize("name", EVERY)
def test_empty_images_and_a_teacher_that_finds_nothing_are_no_trouble(name, make, teacher, pictures):
    unlabelled = replace(pictures, targets=NOTHING)
    blank = replace(unlabelled, images=torch.zeros_like(pictures.images))
    for batch, tutor in ((unlabelled, teacher), (blank, teacher), (unlabelled, silenced(teacher, make))):
        student = make()
        value = worth(name, student, tutor, batch)
        value.backward()
        assert torch.isfinite(value)
        assert all(torch.isfinite(p.grad).all() for p in student.module.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_changes_no_loss_by_much(name, make, teacher, pictures):
    full = worth(name, make(), teacher, pictures)
    half = worth(name, make(), teacher, pictures, precision="bf16")
    half.backward()
    assert half.item() == pytest.approx(full.item(), rel=0.1)


def unlabelled(samples):
    return [Sample(sample.image, np.zeros((0, 5), np.float32)) for sample in samples]


@pytest.mark.parametrize("name", EVERY)
def test_training_by_any_loss_alone_and_without_labels_brings_it_down(name, make, teacher, shapes):
    told = recipe(epochs=3, label_weight=0.0, losses={name: 1.0})
    report = train(make(), unlabelled(shapes[0][:48]), told, teacher=teacher)
    assert set(report.losses[0]) == {name}
    assert report.losses[-1][name] < 0.95 * report.losses[0][name]


@pytest.mark.parametrize("losses", [{name: 1.0, "boxes": 1.0} for name in ("js", "sed", "td")] + [{OWN_LOSS: 1.0}])
def test_a_student_learns_what_objects_are_from_answers_alone(losses, make, teacher, shapes):
    """Without a single label. Of `class_scores`, so of `kl` and `ce`, the trainer's tests say the same."""
    learned = []
    for seed in range(2):
        student = make(seed=seed)
        train(student, unlabelled(shapes[0]), recipe(label_weight=0.0, losses=losses, seed=seed), teacher=teacher)
        learned.append(evaluate(student, shapes[1], LABELS).map50)
    assert np.mean(learned) > 0.25, learned


def test_labels_without_weight_are_never_looked_at(make, teacher, shapes):
    """Equal weights from right labels, from none, and where a loss asks where objects are."""
    students = []
    for samples in (shapes[0], unlabelled(shapes[0])):
        student = make()
        losses = {"fgd": 1.0, "rkd_angle": 1.0, OWN_LOSS: 1.0}
        train(student, samples, recipe(steps=2, label_weight=0.0, losses=losses), teacher=teacher)
        students.append(student.weights())
    assert all(np.array_equal(students[0][n], students[1][n]) for n in students[0])


def test_nothing_to_learn_from_is_refused(make, teacher, shapes):
    for taught_by, losses in ((None, {"kl": 1.0}), (teacher, {"kl": 0.0}), (teacher, {})):
        with pytest.raises(InvalidInput, match="nothing to learn from"):
            train(make(), shapes[0], recipe(label_weight=0.0, losses=losses), teacher=taught_by)


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


def lesson(student: Outputs, teacher: Outputs, ids=((0, 1, 2), (0, 1, 2)), **changes) -> Lesson:
    taught = {"student_ids": torch.tensor(ids[0]), "teacher_ids": torch.tensor(ids[1])}
    return Lesson(student, teacher, **{"targets": TARGETS, **taught, "detection_loss": _no_loss, **changes})


def _no_loss(targets: Targets) -> torch.Tensor:
    raise AssertionError("only pseudo-labels need the detection loss")


def built(name: str, student: Outputs, teacher: Outputs):
    return LOSSES[name]([f.shape[1] for f in student.features], [f.shape[1] for f in teacher.features])


SCORES = ["class_scores", "kl", "js", "sed", "td", "msed", "ce"]


def test_class_scores_are_kullback_leibler_at_temperature_one():
    student, teacher = outputs(0), outputs(1)
    values = [built(name, student, teacher)(lesson(student, teacher)).item() for name in ("class_scores", "kl", "ce")]
    assert values == pytest.approx([values[0]] * 3, rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
@pytest.mark.parametrize("name", SCORES[1:])
def test_a_weight_means_as_much_with_any_measure_and_temperature_where_the_two_nearly_agree(name, temperature):
    teacher = outputs(1)
    gradients = []
    for measure, heat in (("kl", temperature), (name, temperature)):
        student = replace(teacher, class_logits=(teacher.class_logits + 0.05).requires_grad_())
        built(measure, student, teacher)(lesson(student, teacher, temperature=heat)).backward()
        gradients.append(student.class_logits.grad)
    assert torch.allclose(*gradients, rtol=0.1, atol=2e-5)


@pytest.mark.parametrize("name", SCORES)
def test_scores_beyond_what_a_probability_can_hold_leave_the_gradient_finite(name):
    student, teacher = outputs(0), outputs(1)
    student.class_logits[0], teacher.class_logits[0] = 200.0, -200.0
    student.class_logits[1], teacher.class_logits[1] = -200.0, 200.0
    student.class_logits.requires_grad_()
    value = built(name, student, teacher)(lesson(student, teacher))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.class_logits.grad).all()


@pytest.mark.parametrize("name", SCORES)
def test_classes_that_are_not_taught_get_no_gradient(name):
    student, teacher = outputs(0, classes=4), outputs(1, classes=3)
    student.class_logits.requires_grad_()
    built(name, student, teacher)(lesson(student, teacher, ids=((0, 2), (1, 2)))).backward()
    by_class = student.class_logits.grad.abs().sum((0, 1))
    assert by_class[[1, 3]].tolist() == [0, 0]
    assert (by_class[[0, 2]] > 0).all()


@pytest.mark.parametrize("name", SCORES)
def test_classes_are_matched_by_the_ids_given(name):
    student, teacher = outputs(0), outputs(1)
    swapped = replace(teacher, class_logits=teacher.class_logits[..., [2, 0, 1]])
    loss = built(name, student, teacher)
    straight = loss(lesson(student, teacher))
    assert loss(lesson(student, swapped, ids=((0, 1, 2), (1, 2, 0)))) == pytest.approx(straight.item())


@pytest.mark.parametrize("name", [*SCORES, "boxes", "scored_features"])
def test_a_teacher_that_is_not_confident_says_nothing(name):
    student, teacher = outputs(0), outputs(1)
    teacher.class_logits.fill_(-6)
    assert built(name, student, teacher)(lesson(student, teacher, confidence=0.5)) == 0


@pytest.mark.parametrize("bins", [(16, 16), (1, 1), (16, 1), (1, 16)])
def test_boxes_are_compared_whatever_a_family_calls_a_box(bins):
    student, teacher = outputs(0, bins=bins[0]), outputs(1, bins=bins[1])
    student.box_logits.requires_grad_()
    value = built("boxes", student, teacher)(lesson(student, teacher))
    value.backward()
    assert value > 0
    assert student.box_logits.grad.abs().sum() > 0


def one_box(sure: float) -> Outputs:
    """Anchor 17, at (12, 20), sees a box of class 1 two strides to each side; its neighbour sees the same box."""
    said = outputs(0, bins=1)
    said.class_logits.fill_(-20.0)
    said.class_logits[1, 17, 1], said.class_logits[1, 18, 1] = sure, sure - 0.1
    said.box_logits[1, 17, :, 0] = 2.0
    said.box_logits[1, 18, :, 0] = torch.tensor([3.0, 2, 1, 2])
    return said


def test_the_teachers_boxes_are_its_answers_after_suppression_in_the_students_ids():
    seen: list[Targets] = []

    def loss_of(targets: Targets) -> torch.Tensor:
        seen.append(targets)
        return torch.ones(())

    student = outputs(1, classes=4)
    taught = lesson(
        student, one_box(2.0), ids=((3, 2), (0, 1)), detection_loss=lambda t: seen.append(t) or torch.ones(())
    )
    assert built("pseudo_labels", student, student)(taught) == 1
    (targets,) = seen
    assert (targets.image_index.tolist(), targets.classes.tolist()) == ([1], [2])
    assert targets.boxes[0].tolist() == pytest.approx([14 / 64, 20 / 64, 28 / 64, 32 / 64]), "4..28 and 4..36"
    assert targets.labelled.tolist() == [[0, 0, 1, 1]] * 2, "of other classes the teacher says nothing"


@pytest.mark.parametrize(("score", "least", "count"), [(0.46, 0.0, 1), (0.44, 0.0, 0), (0.44, 0.3, 1), (0.5, 0.6, 0)])
def test_a_pseudo_label_needs_a_score_of_045_or_what_the_recipe_says(score, least, count):
    said = one_box(float(np.log(score / (1 - score))))
    assert len(lesson(outputs(1), said, confidence=least).teacher_boxes.boxes) == count


def test_boxes_of_two_images_or_two_classes_do_not_suppress_each_other():
    said = one_box(2.0)
    said.class_logits[0], said.box_logits[0] = said.class_logits[1], said.box_logits[1]
    said.class_logits[1, 17, 2] = 3.0
    boxes = found(said, torch.tensor([0, 1, 2]), 0.45, 0.6)
    assert sorted(zip(boxes.image_index.tolist(), boxes.classes.tolist(), strict=True)) == [(0, 1), (1, 1), (1, 2)]


def test_a_teacher_that_sees_objects_everywhere_does_not_stop_the_training():
    everywhere = outputs(0, classes=80)
    everywhere.class_logits.fill_(5.0)
    boxes = found(everywhere, torch.arange(80), 0.45, 0.6)
    assert 0 < len(boxes.boxes) <= 8000
    assert boxes.boxes.min() >= 0
    assert boxes.boxes.max() <= 1


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
