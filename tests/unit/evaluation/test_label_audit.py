"""Labels that are probably wrong, by what models say: each kind of fault, and what must not be taken for one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diredi
from diredi.data.dataset import Dataset, Sample
from diredi.data.images import encode_jpeg
from diredi.detectors.predictor import Detections, Image
from diredi.errors import InvalidInput
from diredi.evaluation.label_audit import audit_labels
from diredi.evaluation.label_findings import LabelAudit
from diredi.labels import LabelSpace

SIDE = 100
NAMES = ("car", "person", "crane")
Box = tuple[float, float, float, float]
A, B, C = (10.0, 10.0, 30.0, 40.0), (60.0, 10.0, 90.0, 50.0), (20.0, 60.0, 60.0, 90.0)


class Knows:
    """A predictor of known answers: image number to (class, box, confidence)."""

    def __init__(self, answers: Mapping[int, Sequence[tuple[str, Box, float]]], names: Sequence[str]) -> None:
        self.labels, self._answers = LabelSpace.of(names), answers

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        found = [[one for one in self._answers.get(number_of(image), ()) if one[2] >= confidence] for image in images]
        return [
            Detections.of([box for _, box, _ in one], [s for *_, s in one], [self.labels.id_of(n) for n, *_ in one])
            for one in found
        ]


def number_of(image: Image) -> int:
    return round(float(image.mean()) / 4)


def row(name: str, box: Box) -> list[float]:
    x1, y1, x2, y2 = (value / SIDE for value in box)
    return [NAMES.index(name), (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


@pytest.fixture
def labelled(tmp_path: Path):
    """labelled({0: [("car", A)]}) is a data set whose image 0 has such labels; its grey says its number."""

    def make(labels: Mapping[int, Sequence[tuple[str, Box]]], images: int = 30) -> Dataset:
        samples = []
        for number in range(images):
            path = tmp_path / f"{number}.jpg"
            path.write_bytes(encode_jpeg(np.full((SIDE, SIDE, 3), 4 * number, np.uint8)))
            rows = [row(name, box) for name, box in labels.get(number, ())]
            samples.append(Sample(path, np.array(rows, np.float32).reshape(-1, 5)))
        return Dataset(tmp_path, NAMES, samples, [])

    return make


RIGHT: dict[int, list[tuple[str, Box]]] = {number: [("car", A), ("person", B)] for number in range(30)}
SEEN: dict[int, list[tuple[str, Box, float]]] = {number: [("car", A, 0.8), ("person", B, 0.7)] for number in range(30)}


def audited(data: Dataset, *models: Knows) -> LabelAudit:
    return audit_labels(models or (Knows(SEEN, NAMES[:2]),), data)


def test_labels_on_which_all_agree_give_no_finding(labelled):
    audit = audited(labelled(RIGHT))
    assert audit.findings == () and str(audit) == "no findings in 60 labels of 30 images"
    assert audit.per_class["car"].believed == 1 and audit.per_class["car"].agreed == 1


def test_a_label_on_which_a_model_is_sure_of_another_class_is_wrong(labelled):
    (found,) = audited(labelled(RIGHT | {3: [("person", A), ("person", B)]})).findings
    assert (found.kind, found.label, found.seen, found.number) == ("wrong class", "person", "car", 0)
    assert found.image.name == "3.jpg" and found.box == found.seen_box == A
    assert found.score == pytest.approx(0.8, abs=0.05) and found.belief == 0


def test_an_object_without_a_label_is_missing_once_whatever_classes_it_is_given(labelled):
    twice = SEEN | {3: [*SEEN[3], ("car", C, 0.9), ("person", C, 0.6)]}
    (found,) = audited(labelled(RIGHT), Knows(twice, NAMES[:2])).findings
    assert (found.kind, found.seen, found.seen_box, found.label, found.number) == ("missing", "car", C, None, None)


def test_a_label_beside_its_object_is_misplaced_and_the_object_is_not_missing_too(labelled):
    beside = (25.0, 10.0, 45.0, 40.0)
    (found,) = audited(labelled(RIGHT | {3: [("car", beside), ("person", B)]})).findings
    assert (found.kind, found.box, found.seen_box) == ("misplaced", beside, A)


def test_a_label_where_nothing_is_seen_is_told_if_such_labels_are_seen_elsewhere(labelled):
    (found,) = audited(labelled(RIGHT | {3: [*RIGHT[3], ("car", C)]})).findings
    assert (found.kind, found.label, found.number, found.seen) == ("nothing there", "car", 2, None)
    blind = Knows({number: SEEN[number] if number < 15 else [] for number in range(30)}, NAMES[:2])
    assert not audited(labelled(RIGHT), blind).findings, "a model that misses half of a class has nothing to say"


def test_two_labels_on_one_object_are_duplicates_and_the_less_believed_one_is_told(labelled):
    nearly = (10.0, 10.0, 30.0, 41.0)
    (found,) = audited(labelled(RIGHT | {3: [("crane", nearly), *RIGHT[3]]})).findings
    assert (found.kind, found.label, found.seen, found.seen_box) == ("duplicate", "crane", "car", A)


def test_one_model_that_believes_a_label_is_enough(labelled):
    data = labelled(RIGHT | {3: [("person", A), ("person", B)]})
    doubts = Knows(SEEN | {3: [("person", A, 0.75), ("person", B, 0.7)]}, NAMES[:2])
    assert [found.kind for found in audited(data).findings] == ["wrong class"]
    assert not audited(data, Knows(SEEN, NAMES[:2]), doubts).findings


def test_a_model_that_does_not_know_a_class_does_not_doubt_it(labelled):
    data = labelled(RIGHT | {3: [("person", A), ("person", B)]})
    no_cars = Knows({number: [("person", B, 0.7)] for number in range(30)}, ["person"])
    (alone,), (both,) = audited(data).findings, audited(data, Knows(SEEN, NAMES[:2]), no_cars).findings
    assert both.confidence == alone.confidence and both.seen == "car"


def test_a_class_that_no_model_knows_is_not_doubted_and_is_named(labelled):
    audit = audited(labelled({number: [*RIGHT[number], ("crane", C)] for number in range(30)}))
    assert not audit.findings and audit.not_audited == ("crane",)
    assert "no model knows crane" in audit.notes()[0]


def test_a_class_that_is_never_labelled_is_told_once_and_not_as_many_missing_labels(labelled):
    audit = audited(labelled({number: [("car", A)] for number in range(30)}))
    assert not audit.findings and audit.not_labelled == {"person": 30}
    assert audit.notes() == [
        "no person is labelled, and the models see 30: label them, or take the class out of `names`"
    ]


def test_a_class_that_people_label_otherwise_than_models_see_it_does_not_crowd_out_the_others(labelled):
    some = {number: [("car", A), ("person", B)] if number < 3 else [("car", A)] for number in range(30)}
    assert not [found for found in audited(labelled(some)).findings if found.score > 0.35 and found.seen == "person"]


@pytest.mark.slow
def test_the_surest_findings_come_first_and_go_to_pandas_and_json(labelled):
    pytest.importorskip("pandas")
    wrong = RIGHT | {3: [("person", A), ("person", B)], 4: [("car", A)], 5: [("car", A), ("car", B)]}
    audit = audited(labelled(wrong))
    scores = [found.score for found in audit.findings]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert list(audit.to_pandas()["kind"]) == [found.kind for found in audit.findings]
    assert LabelAudit.model_validate(json.loads(audit.model_dump_json())) == audit


def test_labels_can_be_corrected_as_the_models_see_them_and_held_out_ones_stay(labelled):
    right = labelled(RIGHT)
    wrong = labelled(
        RIGHT
        | {
            3: [("person", A), ("person", B)],
            4: [("car", A)],
            5: [("car", (25.0, 10.0, 45.0, 40.0)), ("person", B)],
            6: [*RIGHT[6], ("car", C)],
            7: [*RIGHT[7], ("person", (60.0, 10.0, 90.0, 50.5))],
        }
    )
    audit = audited(wrong)
    assert [len([f for f in audit.findings if f.kind == kind]) for kind in audit.counts()] == [1, 1, 1, 1, 1]
    corrected = audit.corrected(wrong)
    for sample, wanted in zip(corrected.train, right.train, strict=True):
        assert sample.boxes == pytest.approx(wanted.boxes, abs=0.006), sample.image
    held_out = replace(wrong, train=[], val=wrong.train)
    assert audited(held_out).corrected(held_out).val == held_out.val
    with pytest.raises(InvalidInput, match="audit this data set anew"):
        audit.corrected(replace(wrong, train=[replace(one, boxes=one.boxes[:0]) for one in wrong.train]))


def test_nothing_to_look_at_and_nobody_to_look_are_told(labelled):
    data = labelled(RIGHT)
    with pytest.raises(InvalidInput, match="no model"):
        audit_labels([], data)
    with pytest.raises(InvalidInput, match="no images"):
        audit_labels(Knows(SEEN, NAMES[:2]), replace(data, train=[]))
    with pytest.raises(InvalidInput, match="no class in common"):
        audit_labels(Knows({}, ["boat"]), data)


@pytest.mark.slow
def test_it_works_with_detectors_exported_ones_and_several_looks(tmp_path: Path, labelled):
    detector = diredi.create("yolo11-w0.0625", 64, ["car", "person"], 0, device="cpu")
    diredi.export(detector, tmp_path / "model.onnx")
    models = [detector, diredi.OnnxPredictor(tmp_path / "model.onnx"), diredi.TTAPredictor.of(detector, [64])]
    audit = audit_labels(models, labelled(RIGHT, 4))
    assert audit.models == 3 and audit.images == 4 and audit.per_class["person"].known_by == 3


boxes = st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(1, 60), st.integers(1, 60)).map(
    lambda box: (box[0], box[1], min(box[0] + box[2], SIDE), min(box[1] + box[3], SIDE))
)
labels = st.lists(st.tuples(st.sampled_from(NAMES), boxes), max_size=5)
answers = st.lists(st.tuples(st.sampled_from(NAMES[:2]), boxes, st.integers(3, 100).map(lambda n: n / 100)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(labels, answers, answers), min_size=1, max_size=4))
def test_whatever_labels_and_models_say_each_label_is_questioned_once_and_scores_are_shares(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("images")
    samples = []
    for number, (said, *_) in enumerate(images):
        path = folder / f"{number}.jpg"
        path.write_bytes(encode_jpeg(np.full((SIDE, SIDE, 3), 4 * number, np.uint8)))
        samples.append(Sample(path, np.array([row(*one) for one in said], np.float32).reshape(-1, 5)))
    models = [Knows({n: image[which] for n, image in enumerate(images)}, NAMES[:2]) for which in (1, 2)]
    audit = audit_labels(models, Dataset(folder, NAMES, samples, []))
    doubted = [(found.image, found.number) for found in audit.findings if found.kind not in ("missing", "duplicate")]
    assert len(doubted) == len(set(doubted))
    for found in audit.findings:
        assert 0 < found.score <= 1
        assert found.kind != "wrong class" or found.label != found.seen
        assert found.label != "crane" or found.kind == "duplicate"
