"""Statistics over images: COCO's figures where each image counts once, and hand-made ones where it does not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from diredi.data.dataset import Sample
from diredi.detectors.predictor import Detections
from diredi.evaluation.bootstrap import ap50, draw_images, interval
from diredi.evaluation.detection import Matches, evaluate_with_matches
from diredi.labels import LabelSpace

LABELS = LabelSpace(names=("car", "person"))


def matches_of(rows: list[tuple[int, int, float, bool]], boxes: list[list[int]]) -> Matches:
    images, classes, scores, right = (np.array(column) for column in zip(*rows, strict=True))
    return Matches(images, classes, scores, right, np.array(boxes))


class Guesses:
    """Boxes near the labelled ones, some of which are off, and some that are nowhere near."""

    labels = LABELS

    def __init__(self, samples: list[Sample]) -> None:
        self._left = list(samples)

    def predict(self, images, confidence=0.001):
        return [self._of(self._left.pop(0)) for _ in images]

    def _of(self, sample: Sample) -> Detections:
        random = np.random.default_rng(len(self._left))
        kinds = np.repeat(sample.boxes[:, 0].astype(int), 3)
        centre, sides = (np.repeat(64 * sample.boxes[:, part], 3, axis=0) for part in (slice(1, 3), slice(3, 5)))
        centre = centre + random.normal(0, 4, centre.shape)
        return Detections.of(np.hstack([centre - sides / 2, centre + sides / 2]), random.random(len(kinds)), kinds)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory):
    folder, random, samples = tmp_path_factory.mktemp("images"), np.random.default_rng(0), []
    for number in range(12):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
        count = int(random.integers(1, 5))
        boxes = np.hstack([random.integers(0, 2, (count, 1)), random.uniform(0.3, 0.7, (count, 4)) * [1, 1, 0.5, 0.5]])
        samples.append(Sample(path, boxes.astype(np.float32)))
    return samples, evaluate_with_matches(Guesses(samples), samples, LABELS)


def test_images_as_they_are_have_the_average_precision_of_the_evaluation(judged):
    _, (metrics, matches) = judged
    found = ap50(matches, [0, 1], draw_images(12, seed=0))
    assert 0.1 < metrics.map50 < 0.9
    assert found[0] == pytest.approx(100 * metrics.map50, abs=1e-9)
    assert found[1:].std() > 0


def test_an_image_that_is_drawn_twice_counts_as_two_images(judged):
    samples, (_, matches) = judged
    drawn = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12))
    twice = [sample for sample, times in zip(samples, drawn, strict=True) for _ in range(times)]
    guessed = Guesses(samples)
    known = {sample.image: guessed._of(guessed._left.pop(0)) for sample in samples}
    guessed.predict = lambda images, confidence=0.001: [known[sample.image] for sample in twice]
    metrics, _ = evaluate_with_matches(guessed, twice, LABELS)
    assert ap50(matches, [0, 1], drawn[None])[0] == pytest.approx(100 * metrics.map50, abs=1e-9)


def test_a_resample_without_a_box_of_a_class_leaves_it_out():
    matches = matches_of([(0, 0, 0.9, True), (1, 1, 0.8, False)], [[1, 0], [0, 1]])
    found = ap50(matches, [0, 1], np.array([[1, 1], [2, 0], [0, 2]]))
    assert found == pytest.approx([50.0, 100.0, 0.0])


def test_the_same_images_are_drawn_again():
    assert (draw_images(30, seed=4) == draw_images(30, seed=4)).all()
    assert (draw_images(30, seed=4)[1:].sum(1) == 30).all()


def test_the_interval_of_a_pair_is_narrower_than_that_of_either(judged):
    _, (_, matches) = judged
    worse = Matches(matches.images, matches.classes, matches.scores, matches.right.copy(), matches.boxes)
    worse.right[np.flatnonzero(worse.right)[0]] = False
    drawn = draw_images(12, seed=0)
    mine, theirs = (ap50(one, [0, 1], drawn) for one in (matches, worse))
    low, high = interval(mine - theirs)
    alone = interval(mine)
    assert 0 <= low < mine[0] - theirs[0] < high
    assert high - low < alone[1] - alone[0]
