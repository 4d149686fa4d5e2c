"""What is particular to losses on scores, boxes and pseudo-labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from answers import built, lesson, one_box, outputs

from diredi.detectors.base import Targets
from diredi.distillation.losses.boxes import found

SCORES = ["class_scores", "kl", "js", "sed", "td", "msed", "ce"]
SILENCED = [*SCORES, "logits"]


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


@pytest.mark.parametrize("name", [*SILENCED, "boxes", "scored_features"])
def test_a_teacher_that_is_not_confident_says_nothing(name):
    student, teacher = outputs(0), outputs(1)
    teacher.class_logits.fill_(-6)
    assert built(name, student, teacher)(lesson(student, teacher, confidence=0.5)) == 0


def test_logits_tell_apart_places_whose_scores_are_all_next_to_nothing():
    student, teacher = outputs(0), outputs(1)
    student.class_logits.fill_(-12.0).requires_grad_()
    teacher.class_logits.fill_(-12.0)
    teacher.class_logits[0, 17, 1] = -6.0
    gradients = {}
    for name in ("class_scores", "logits"):
        (gradients[name],) = torch.autograd.grad(
            built(name, student, teacher)(lesson(student, teacher)), student.class_logits
        )
    assert gradients["logits"][0, 17, 1].abs() == gradients["logits"].abs().sum() > 0
    assert gradients["logits"][0, 17, 1].abs() * gradients["logits"].numel() > 1
    assert gradients["class_scores"][0, 17, 1].abs() < 0.01


@pytest.mark.parametrize("name", SILENCED)
def test_a_teacher_says_nothing_of_classes_that_labels_speak_of(name):
    student, teacher = outputs(0), outputs(1)
    student.class_logits.requires_grad_()
    built(name, student, teacher)(lesson(student, teacher, silent=torch.tensor([[0.0, 1, 0], [0, 0, 0]]))).backward()
    by_image_and_class = student.class_logits.grad.abs().sum(1)
    assert by_image_and_class[0, 1] > 0
    assert by_image_and_class.sum() == by_image_and_class[0, 1]


def test_sides_of_a_box_are_not_taught_where_labels_speak_of_all_the_teacher_knows():
    student, teacher = outputs(0), outputs(1)
    student.box_logits.requires_grad_()
    built("boxes", student, teacher)(lesson(student, teacher, silent=torch.tensor([[1.0, 1, 1], [0, 0, 0]]))).backward()
    first, second = student.box_logits.grad.abs().sum((1, 2, 3))
    assert first > 0
    assert second == 0


def test_pseudo_labels_leave_out_classes_that_labels_speak_of():
    spoken, silent = torch.tensor([[0.0, 1, 1], [1, 0, 1]]), torch.tensor([[0.0, 0, 0], [0, 1, 0]])
    assert len(lesson(outputs(0), one_box(2.0), silent=spoken).teacher_boxes.boxes) == 0
    taught = lesson(outputs(0), one_box(2.0), silent=silent).teacher_boxes
    assert taught.classes.tolist() == [1]
    assert taught.labelled.tolist() == silent.tolist()


@pytest.mark.parametrize("bins", [(16, 16), (1, 1), (16, 1), (1, 16)])
def test_boxes_are_compared_whatever_a_family_calls_a_box(bins):
    student, teacher = outputs(0, bins=bins[0]), outputs(1, bins=bins[1])
    student.box_logits.requires_grad_()
    value = built("boxes", student, teacher)(lesson(student, teacher))
    value.backward()
    assert value > 0
    assert student.box_logits.grad.abs().sum() > 0


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
