"""One contract for every loss in LOSSES, with real detectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from answers import NOTHING
from rectangles import LABELS, STILL, recipe

from diredi.data.dataset import Sample
from diredi.distillation.batches import Batch, Batches, Pool
from diredi.distillation.losses import LOSSES
from diredi.distillation.trainer import Distiller, autocast, train
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.labels import LabelSpace

EVERY = sorted(LOSSES)
OWN_LOSS = "pseudo_labels"  # the student's own loss, which no student brings to 0
GROWN = LabelSpace(names=(*LABELS.names, "new"))


@pytest.fixture
def pictures(shapes):
    """Eight images with their labels, as the trainer would show them."""
    return next(iter(Batches([Pool(shapes[0])], recipe(steps=1), size=64, classes=3)))


def worth(name: str, student, teacher, batch: Batch, **changes: object):
    """The loss of one batch, as the trainer computes it."""
    told = recipe(losses={name: 1.0}, **changes)
    lessons = Distiller(teacher, student, told)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_training_by_any_loss_alone_and_without_labels_brings_it_down(name, make, teacher, shapes):
    """Of one batch that is always the same, so that an epoch's loss is not also that of its images."""
    told = recipe(epochs=12, augment=STILL, label_weight=0.0, losses={name: 1.0})
    report = train(make(), unlabelled(shapes[0][: told.batch]), told, teacher=teacher)
    assert set(report.losses[0]) == {name}
    assert report.losses[-1][name] < 0.9 * report.losses[0][name]


@pytest.mark.slow
@pytest.mark.parametrize("losses", [{name: 1.0, "boxes": 1.0} for name in ("js", "sed", "td")] + [{OWN_LOSS: 1.0}])
def test_a_student_learns_what_objects_are_from_answers_alone(losses, make, teacher, shapes):
    """Without a single label. Of `class_scores`, so of `kl` and `ce`, the trainer's tests say the same."""
    learned = []
    for seed in range(2):
        student = make(seed=seed)
        told = recipe(epochs=6, label_weight=0.0, losses=losses, seed=seed)
        train(student, unlabelled(shapes[0]), told, teacher=teacher)
        learned.append(evaluate(student, shapes[1], LABELS).map50)
    assert np.mean(learned) > 0.25, learned


@pytest.mark.slow
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
