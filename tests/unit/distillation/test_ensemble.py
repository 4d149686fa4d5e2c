"""Several looks of a teacher are fused into labels for images that have none."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from rectangles import LABELS, recipe

from diredi.data.dataset import Sample
from diredi.detectors.predictor import Detections, Image
from diredi.distillation.ensemble import TTAPredictor, pseudo_label, weighted_boxes_fusion
from diredi.distillation.trainer import train
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.labels import LabelSpace


class FindsWhite:
    """A predictor that needs no learning: one box around all that is white, as sure as it is told to be."""

    def __init__(self, sure: float = 0.8, labels: LabelSpace = LABELS, kind: int = 1) -> None:
        self.labels, self._sure, self._kind = labels, sure, kind

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        return [self._found(image) if self._sure >= confidence else said([]) for image in images]

    def _found(self, image: Image) -> Detections:
        x, y, wide, high = cv2.boundingRect((image[..., 0] > 200).astype(np.uint8))
        return said([(x, y, x + wide, y + high, self._sure, self._kind)] if wide else [])


def said(rows: list[tuple[float, ...]]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def picture(left: int, top: int, right: int, bottom: int) -> Image:
    image = np.zeros((40, 80, 3), np.uint8)
    image[top:bottom, left:right] = 255
    return image


def test_a_box_that_two_looks_see_is_their_mean_weighted_by_how_sure_they_are() -> None:
    found = weighted_boxes_fusion([said([(0, 0, 10, 10, 0.6, 1)]), said([(0, 0, 12, 10, 0.2, 1)])], 0.1)
    assert found.boxes[0] == pytest.approx([0, 0, 10.5, 10])
    assert (len(found), found.scores[0], found.classes[0]) == (1, pytest.approx(0.4), 1)


def test_what_one_look_alone_sees_is_half_as_sure_and_falls_below_the_line() -> None:
    alone = [said([(0, 0, 10, 10, 0.6, 1)]), said([])]
    assert weighted_boxes_fusion(alone, 0.1).scores == pytest.approx([0.3])
    assert len(weighted_boxes_fusion(alone, 0.31)) == 0
    assert len(weighted_boxes_fusion([said([]), said([])], 0.1)) == 0


def test_who_is_trusted_more_is_heard_more() -> None:
    looks = [said([(0, 0, 10, 10, 0.6, 1)]), said([(0, 0, 12, 10, 0.6, 1)])]
    found = weighted_boxes_fusion(looks, 0.1, trust=np.array([[0.0, 0.9], [0.0, 0.3]]))
    assert found.boxes[0] == pytest.approx([0, 0, 10.5, 10])
    assert found.scores == pytest.approx([0.6])


def test_who_was_never_taught_a_class_neither_speaks_for_it_nor_against_it() -> None:
    looks = [said([(0, 0, 10, 10, 0.6, 1)]), said([]), said([(40, 0, 60, 20, 0.9, 1)])]
    found = weighted_boxes_fusion(looks, 0.1, trust=np.array([[0.5, 0.5], [0.5, 0.0], [0.5, 0.0]]))
    assert (len(found), found.scores[0]) == (1, pytest.approx(0.6))
    silent = weighted_boxes_fusion(looks, 0.1, trust=np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.0]]))
    assert silent.scores == pytest.approx([0.3])


def test_what_too_few_have_seen_is_left_out() -> None:
    looks = [said([(0, 0, 10, 10, 0.9, 1), (40, 0, 60, 20, 0.9, 0)]), said([(0, 0, 10, 10, 0.9, 1)])]
    assert weighted_boxes_fusion(looks, 0.1, agreeing=2).classes.tolist() == [1]
    alone = np.array([[0.5, 0.5], [0.0, 0.5]])
    found = weighted_boxes_fusion(looks, 0.1, agreeing=2, trust=alone)
    assert sorted(found.classes.tolist()) == [0, 1], "of the first class nobody else speaks"


def test_a_look_that_gives_one_object_two_boxes_does_not_make_it_surer_than_sure() -> None:
    twice = said([(10, 10, 30, 30, 0.9, 1), (10, 11, 30, 32, 0.9, 1)])
    one = weighted_boxes_fusion([twice], 0.1)
    assert len(one) == 1 and one.scores[0] == pytest.approx(0.9)


def test_classes_and_boxes_that_hardly_touch_stay_apart_and_the_surest_comes_first() -> None:
    looks = [
        said([(0, 0, 10, 10, 0.4, 1), (0, 0, 10, 10, 0.6, 2)]),
        said([(6, 0, 16, 10, 0.9, 1), (0, 0, 10, 10, 0.6, 2)]),
    ]
    found = weighted_boxes_fusion(looks, 0.1)
    assert found.classes.tolist() == [2, 1, 1]
    assert found.scores == pytest.approx([0.6, 0.45, 0.2])


def test_a_mirrored_look_says_where_things_are_in_the_picture_itself() -> None:
    found = TTAPredictor((FindsWhite(), FindsWhite())).predict([picture(5, 8, 25, 30), picture(60, 0, 80, 12)])
    assert [one.boxes.tolist() for one in found] == [[[5, 8, 25, 30]], [[60, 0, 80, 12]]]
    assert found[0].scores == pytest.approx([0.8])


def test_labels_have_the_ids_of_the_student_and_leave_out_what_it_does_not_know(tmp_path) -> None:
    theirs = LabelSpace(names=("unseen", "disc"))
    file, empty = tmp_path / "a.png", tmp_path / "b.png"
    cv2.imwrite(str(file), picture(20, 10, 40, 30))
    cv2.imwrite(str(empty), np.zeros((40, 80, 3), np.uint8))
    samples = [Sample(path, np.ones((3, 5), np.float32)) for path in (file, empty)]
    known, unknown = (pseudo_label(FindsWhite(0.8, theirs, kind), samples, LABELS, 0.5) for kind in (1, 0))
    assert known[0].boxes.tolist() == [pytest.approx([LABELS.names.index("disc"), 0.375, 0.5, 0.25, 0.5])]
    assert [len(sample.boxes) for sample in (known[1], *unknown)] == [0, 0, 0]
    assert known[0].boxes.dtype == np.float32


@pytest.mark.parametrize("sizes", [(), (64, 80), (0,)])
def test_sizes_that_no_network_takes_are_refused(make, sizes: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="multiple of 32"):
        TTAPredictor.of(make(), sizes)


@pytest.mark.slow
def test_a_student_learns_from_what_its_teacher_saw_in_several_looks(make, teacher, shapes) -> None:
    images = [Sample(sample.image, np.zeros((0, 5), np.float32)) for sample in shapes[0]]
    looks = TTAPredictor.of(teacher, (64, 96))
    assert looks.labels == teacher.spec.labels
    student = make()
    train(student, pseudo_label(looks, images, LABELS, 0.3), recipe(epochs=8))
    assert evaluate(student, shapes[1], LABELS).map50 > 0.3
