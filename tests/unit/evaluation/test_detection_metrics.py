"""DetectionMetrics against an oracle that shares no line with the code under test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diredi.data.dataset import Sample
from diredi.detectors.predictor import Detections
from diredi.errors import DatasetError, InvalidInput
from diredi.evaluation import forgetting
from diredi.evaluation.detection import compute_metrics, evaluate
from diredi.labels import LabelSpace

LABELS = LabelSpace(names=("car", "person", "dog"))


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def oracle_ap(found, wanted, kind, overlap):
    """COCO's average precision, slowly: for each of 101 recalls the best precision at that recall or beyond."""
    answers = sorted(
        (
            (-score, image, i)
            for image, d in enumerate(found)
            for i, score in enumerate(d.scores)
            if d.classes[i] == kind
        ),
    )
    taken, hits = set(), []
    total = sum(int((w[:, 0] == kind).sum()) for w in wanted)
    for _, image, i in answers:
        best, which = overlap, None
        for j, row in enumerate(wanted[image]):
            value = iou(found[image].boxes[i], row[1:])
            if row[0] == kind and (image, j) not in taken and value >= best:
                best, which = value, j
        hits.append(which is not None)
        if which is not None:
            taken.add((image, which))
    curve = [(sum(hits[: n + 1]) / total, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    points = [max((p for r, p in curve if r >= recall - 1e-12), default=0.0) for recall in np.linspace(0, 1, 101)]
    return sum(points) / 101


@st.composite
def scenes(draw):
    """A few images with boxes, and answers that are sometimes near them."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    found, wanted = [], []
    for _ in range(draw(st.integers(1, 4))):
        n, extra = int(random.integers(0, 5)), int(random.integers(0, 4))
        low, sides = random.uniform(0, 60, (n, 2)), random.uniform(10, 40, (n, 2))
        kinds = random.integers(0, 3, n)
        wanted.append(np.concatenate([kinds[:, None], low, low + sides], 1))
        shaken = np.concatenate([low, low + sides], 1) + random.normal(0, 3, (n, 4))
        shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)  # a box has two sides
        noise_low = random.uniform(0, 60, (extra, 2))
        boxes = np.concatenate([shaken, np.concatenate([noise_low, noise_low + 20], 1)]).astype(np.float32)
        classes = np.concatenate([np.where(random.random(n) < 0.8, kinds, 1), random.integers(0, 3, extra)])
        scores = random.permutation(np.linspace(0.05, 0.95, n + extra)).astype(np.float32)
        scores += np.float32(len(found) * 1e-3)  # no ties, whose order is nobody's business
        order = np.argsort(-scores)
        found.append(Detections(boxes[order], scores[order], classes[order].astype(np.int64)))
    return found, wanted


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_average_precision_is_that_of_a_brute_force_oracle(scene):
    found, wanted = scene
    if not sum(len(w) for w in wanted):
        return
    metrics = compute_metrics(found, wanted, LABELS)
    for name, got in metrics.per_class.items():
        kind = LABELS.id_of(name)
        each = [oracle_ap(found, wanted, kind, overlap) for overlap in np.arange(0.5, 0.96, 0.05)]
        assert got.ap50 == pytest.approx(each[0], abs=1e-6)
        assert got.ap50_95 == pytest.approx(np.mean(each), abs=1e-6)
    assert metrics.map50 == pytest.approx(np.mean([c.ap50 for c in metrics.per_class.values()]))


def answers(*rows):
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_perfect_answers_score_one_everywhere():
    wanted = [np.array([[0, 10, 10, 30, 30], [1, 40, 40, 60, 70]], float)]
    found = [answers([10, 10, 30, 30, 0.9, 0], [40, 40, 60, 70, 0.8, 1])]
    metrics = compute_metrics(found, wanted, LABELS)
    assert [metrics.map50, metrics.map50_95, metrics.precision, metrics.recall, metrics.f1] == pytest.approx([1] * 5)
    assert set(metrics.per_class) == {"car", "person"}, "a class without boxes says nothing about the detector"
    assert metrics.per_class["car"].boxes == 1


def test_precision_and_recall_are_read_where_f1_is_best():
    wanted = [np.array([[0, 10, 10, 30, 30], [0, 50, 50, 70, 70]], float)]
    found = [
        answers([10, 10, 30, 30, 0.9, 0], [50, 50, 70, 70, 0.6, 0], [80, 0, 90, 9, 0.3, 0], [0, 80, 9, 90, 0.2, 0])
    ]
    metrics = compute_metrics(found, wanted, LABELS)
    assert (metrics.precision, metrics.recall) == (1, 1)
    assert 0.3 < metrics.confidence <= 0.6


def test_a_box_that_was_found_twice_counts_once():
    wanted = [np.array([[0, 10, 10, 30, 30], [0, 50, 50, 70, 70]], float)]
    found = [answers([10, 10, 30, 30, 0.9, 0], [11, 10, 31, 30, 0.8, 0])]
    metrics = compute_metrics(found, wanted, LABELS)
    assert metrics.recall == 0.5
    assert metrics.precision == 1


def test_nothing_found_scores_zero():
    metrics = compute_metrics([answers()], [np.array([[2, 0, 0, 9, 9]], float)], LABELS)
    assert (metrics.map50, metrics.f1, metrics.per_class["dog"].ap50) == (0, 0, 0)


class Fixed:
    """A predictor of its own label space that always answers alike."""

    def __init__(self, labels, *detections):
        self.labels, self._detections = labels, detections

    def predict(self, images, confidence=0.001):
        return list(self._detections)[: len(images)]


@pytest.fixture
def one_sample(tmp_path: Path) -> Sample:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 100, 3), np.uint8))
    return Sample(tmp_path / "a.png", np.array([[1, 0.5, 0.5, 0.2, 0.4]], np.float32))


def test_class_ids_of_a_predictor_are_matched_by_name(one_sample):
    labels = LabelSpace(names=("cat", "person"))
    found = Fixed(labels, answers([40, 15, 60, 35, 0.9, 1], [40, 15, 60, 35, 0.8, 0]))
    metrics = evaluate(found, [one_sample], LABELS)
    assert metrics.per_class["person"].ap50_95 == pytest.approx(1)
    assert metrics.images == 1


def test_a_class_that_the_predictor_does_not_know_scores_zero(one_sample):
    metrics = evaluate(Fixed(LabelSpace(names=("car",)), answers([40, 15, 60, 35, 0.9, 0])), [one_sample], LABELS)
    assert metrics.per_class["person"].ap50 == 0


def test_a_set_without_boxes_is_refused(one_sample):
    bare = Sample(one_sample.image, np.zeros((0, 5), np.float32))
    with pytest.raises(InvalidInput, match="nothing to measure"):
        evaluate(Fixed(LABELS, answers()), [bare], LABELS)


def test_an_unreadable_image_is_named(one_sample, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"broken\.png"):
        evaluate(Fixed(LABELS, answers()), [Sample(tmp_path / "broken.png", one_sample.boxes)], LABELS)


def test_forgetting_is_what_each_class_lost_and_never_negative():
    wanted = [np.array([[0, 10, 10, 30, 30], [1, 40, 40, 60, 70]], float)]
    car, person = [10, 10, 30, 30, 0.9, 0], [40, 40, 60, 70, 0.8, 1]
    both, only_car, only_person = (
        compute_metrics([answers(*a)], wanted, LABELS) for a in ((car, person), (car,), (person,))
    )
    assert forgetting(both, only_car) == pytest.approx({"car": 0, "person": 1})
    assert forgetting(only_person, only_car) == pytest.approx({"car": 0, "person": 1})
