from __future__ import annotations

import numpy as np
import pytest
from rectangles import LABELS, STILL, recipe

from diredi.data.dataset import Sample
from diredi.data.images import read_image
from diredi.detectors import registry
from diredi.distillation.batches import Pool
from diredi.distillation.trainer import train
from diredi.errors import DatasetError, DirediError, InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.labels import LabelSpace
from diredi.progress import Progress

pytestmark = pytest.mark.slow

KNOWN = LabelSpace(names=LABELS.names[:2])


def test_a_detector_learns_rectangles(teacher, shapes):
    metrics = evaluate(teacher, shapes[1], LABELS)
    assert metrics.map50 > 0.75
    assert min(c.ap50 for c in metrics.per_class.values()) > 0.6


def test_taught_students_beat_those_that_learn_alone(make, teacher, shapes):
    """Over three seeds: so short a training is a matter of luck for one student, with a teacher or without."""
    gains = []
    for seed in range(3):
        alone, taught = make(seed=seed), make(seed=seed)
        train(alone, shapes[0], recipe(epochs=4, seed=seed))
        train(taught, shapes[0], recipe(epochs=4, seed=seed), teacher=teacher)
        gains.append(evaluate(taught, shapes[1], LABELS).map50 - evaluate(alone, shapes[1], LABELS).map50)
    assert np.mean(gains) > 0.1


def test_a_report_has_every_term_of_every_epoch(make, teacher, shapes):
    report = train(make(), shapes[0], recipe(epochs=4), teacher=teacher)
    assert (report.steps, report.epochs, len(report.losses)) == (48, 4, 4)
    assert set(report.losses[0]) == {"labels", "class_scores", "boxes"}
    assert report.losses[-1]["labels"] < 0.7 * report.losses[0]["labels"]


def test_a_student_learns_from_its_teacher_without_a_single_label(make, teacher, shapes):
    student = make()
    bare = [Sample(sample.image, np.zeros((0, 5), np.float32)) for sample in shapes[0]]
    train(student, bare, recipe(epochs=4, label_weight=0.0), teacher=teacher)
    assert evaluate(student, shapes[1], LABELS).map50 > 0.3


def test_feature_distillation_trains_and_leaves_nothing_in_the_weights(make, teacher, shapes):
    student = make()
    schema = student.weights().schema_digest()
    told = recipe(epochs=12, augment=STILL, label_weight=0.0, losses={"fgd": 1.0})
    report = train(student, shapes[0][: told.batch], told, teacher=teacher)
    assert report.losses[-1]["fgd"] < 0.8 * report.losses[0]["fgd"]
    assert student.weights().schema_digest() == schema


@pytest.fixture(scope="module")
def small_teacher(make, known):
    """Knows two of the three classes, and has never been told of the third."""
    detector = make(labels=KNOWN)
    train(detector, known, recipe(epochs=6))
    return detector


def test_a_teacher_that_does_not_know_a_class_does_not_suppress_it(make, small_teacher, shapes):
    """The trap: a teacher asked about all classes teaches that the new one is background."""
    tutor = make("yolo11-w0.125")
    train(tutor, shapes[0], recipe(epochs=7), teacher=small_teacher)
    metrics = evaluate(tutor, shapes[1], LABELS)
    assert metrics.per_class["disc"].ap50 > 0.5


def test_where_labels_say_everything_a_teacher_for_the_unlabelled_changes_nothing(make, teacher, shapes):
    alone, beside = make(), make()
    train(alone, shapes[0], recipe(steps=6))
    train(beside, shapes[0], recipe(steps=6, teaches="unlabelled"), teacher=teacher)
    mine, theirs = alone.weights(), beside.weights()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_teacher_for_the_unlabelled_teaches_the_class_that_no_label_names(make, teacher, shapes):
    """Only green is labelled, and by the labels alone red would never be found."""
    only_green = [Pool([Sample(s.image, s.boxes[s.boxes[:, 0] == 1]) for s in shapes[0]], frozenset({1}))]
    student = make("yolo11-w0.125")
    train(student, only_green, recipe(epochs=6, teaches="unlabelled"), teacher=teacher)
    found = evaluate(student, shapes[1], LABELS).per_class
    assert found["red"].ap50 > 0.3
    assert found["green"].ap50 > 0.3


def test_a_teacher_may_have_its_classes_in_another_order(make, teacher, shapes):
    other = LabelSpace(names=("disc", "unseen", "green", "red"))
    student = make(labels=other)
    ids = np.array([other.id_of(name) for name in LABELS.names], np.float32)
    moved = [Sample(s.image, np.column_stack([ids[s.boxes[:, 0].astype(int)], s.boxes[:, 1:]])) for s in shapes[0]]
    train(student, moved, recipe(epochs=5), teacher=teacher)
    found = evaluate(student, shapes[1], LABELS).per_class
    assert max(c.ap50 for c in found.values()) > 0.15


def test_a_class_that_a_pool_was_not_labelled_for_is_not_unlearned(make, teacher, known, shapes):
    """Boxes of one class are taken away; a pool that says so keeps the class, one that does not loses it."""
    only_green = [Sample(s.image, s.boxes[s.boxes[:, 0] == 1]) for s in known]
    with_red = [read_image(s.image) for s in shapes[1] if 0 in s.boxes[:, 0]]
    kept, lost = make("yolo11-w0.125"), make("yolo11-w0.125")
    for student, classes in ((kept, frozenset({1})), (lost, None)):
        student.load_weights(teacher.weights())
        train(student, [Pool(only_green, classes)], recipe(epochs=3, learning_rate=1e-3))
    red = [
        np.mean([found.scores[found.classes == 0].max(initial=0) for found in student.predict(with_red)])
        for student in (kept, lost)
    ]
    assert red[0] > 3 * red[1]


def test_equal_runs_give_equal_weights_and_another_seed_does_not(make, teacher, shapes):
    runs = []
    for seed in (3, 3, 4):
        student = make()
        train(
            student,
            shapes[0],
            recipe(steps=5, seed=seed, losses={"class_scores": 1, "boxes": 1, "fgd": 1}),
            teacher=teacher,
        )
        runs.append(student.weights())
    assert all(np.array_equal(runs[0][n], runs[1][n]) for n in runs[0])
    assert any(not np.array_equal(runs[0][n], runs[2][n]) for n in runs[0])


def test_the_teacher_learns_nothing(make, teacher, shapes):
    before = teacher.weights()
    train(make(), shapes[0], recipe(steps=3), teacher=teacher)
    after = teacher.weights()
    assert all(np.array_equal(before[n], after[n]) for n in before)
    assert not teacher.module.training


@pytest.mark.parametrize("architecture", ["yolo26-w0.0625", "yolov8-w0.0625"])
def test_every_family_learns_from_every_other(architecture, make, teacher, shapes):
    student = make(architecture)
    report = train(student, shapes[0], recipe(epochs=2), teacher=teacher)
    assert report.losses[-1]["labels"] < report.losses[0]["labels"]
    train(make(), shapes[0], recipe(steps=2), teacher=student)


def test_only_the_named_sections_change_and_gradients_come_back(make, shapes):
    student = make()
    before = student.weights()
    train(student, shapes[0], recipe(steps=3, train_only=("head",)))
    after = student.weights()
    changed = {student.section_of(n) for n in before if not np.array_equal(before[n], after[n])}
    assert changed == {"head"}
    assert all(p.requires_grad for n, p in student.module.named_parameters())


def test_frozen_statistics_stay_while_weights_learn(make, shapes):
    student = make()
    before = student.weights()
    train(student, shapes[0], recipe(steps=3, batch_norm="frozen"))
    after = student.weights()
    assert np.array_equal(before["model.0.bn.running_var"], after["model.0.bn.running_var"])
    assert not np.array_equal(before["model.0.conv.weight"], after["model.0.conv.weight"])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_both_optimizers_bring_the_loss_down(optimizer, make, shapes):
    rate = 4e-3 if optimizer == "adamw" else 2e-2
    report = train(make(), shapes[0], recipe(epochs=2, optimizer=optimizer, learning_rate=rate))
    assert report.losses[-1]["labels"] < report.losses[0]["labels"]


def test_half_precision_arithmetic_learns_as_much_and_leaves_full_precision_weights(make, teacher, shapes):
    last = {}
    for precision in ("fp32", "bf16"):
        student = make()
        report = train(student, shapes[0], recipe(epochs=3, precision=precision), teacher=teacher)
        last[precision] = report.losses[-1]["labels"]
    assert last["bf16"] == pytest.approx(last["fp32"], rel=0.1)
    assert last["bf16"] < 0.8 * report.losses[0]["labels"]
    assert {str(a.dtype) for a in student.weights().values()} == {"float32", "int64"}


def test_progress_is_told_step_by_step_to_the_end(make, shapes):
    heard: list[Progress] = []
    train(make(), shapes[0], recipe(steps=4), on_progress=heard.append)
    assert [(now.step, now.fraction) for now in heard] == [("train", share) for share in (0.25, 0.5, 0.75, 1.0)]
    assert heard[-1].message.startswith("step 4 of 4")


def test_training_ends_in_eval_mode_even_when_it_fails(make, shapes):
    student = make()
    with pytest.raises(DirediError, match="diverged"):
        train(student, shapes[0], recipe(steps=40, learning_rate=1e30, warmup=0.0, optimizer="sgd"))
    assert not student.module.training


def test_what_cannot_be_trained_is_refused_with_its_reason(make, teacher, shapes, tmp_path):
    with pytest.raises(InvalidInput, match="training split is empty"):
        train(make(), [], recipe())
    with pytest.raises(InvalidInput, match="no distillation loss 'magic'"):
        train(make(), shapes[0], recipe(losses={"magic": 1}), teacher=teacher)
    with pytest.raises(InvalidInput, match="share no class"):
        train(make(labels=LabelSpace(names=("cat",))), shapes[0], recipe(), teacher=teacher)
    with pytest.raises(InvalidInput, match="beyond the label space"):
        train(make(labels=KNOWN), shapes[0], recipe())
    with pytest.raises(InvalidInput, match="cannot learn from 1 image of 32 pixels"):
        train(registry.create("yolo11-w0.0625", 32, LABELS, 0, device="cpu"), shapes[0], recipe(batch=1))
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"bad\.png"):
        train(make(), [Sample(tmp_path / "bad.png", np.zeros((0, 5), np.float32))], recipe())
