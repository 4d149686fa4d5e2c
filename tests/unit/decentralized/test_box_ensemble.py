"""Detectors that label images together, by boxes: each speaks of what it was taught, as loudly as it is good at it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from diredi.data.dataset import Sample
from diredi.decentralized.detectors import BoxEnsemble
from diredi.detectors.predictor import Detections, Image
from diredi.distillation.ensemble import pseudo_label
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace

LABELS = LabelSpace(names=("car", "person", "tram"))
Box = tuple[str, tuple[float, float, float, float], float]


class Says:
    """A predictor that finds the same boxes in every image."""

    def __init__(self, names: tuple[str, ...], *boxes: Box) -> None:
        self.labels, self._boxes = LabelSpace(names=names), boxes

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        some = [box for box in self._boxes if box[2] >= confidence]
        found = Detections(
            np.array([box for _, box, _ in some], np.float32).reshape(-1, 4),
            np.array([score for _, _, score in some], np.float32),
            np.array([self.labels.names.index(name) for name, _, _ in some], np.int64),
        )
        return [found] * len(images)


IMAGE = np.zeros((100, 100, 3), np.uint8)
LEFT, RIGHT = (0.0, 0.0, 40.0, 40.0), (60.0, 60.0, 100.0, 100.0)


def heard(ensemble: BoxEnsemble, confidence: float = 0.1) -> dict[str, float]:
    [found] = ensemble.predict([IMAGE], confidence)
    return {LABELS.names[kind]: float(score) for kind, score in zip(found.classes, found.scores, strict=True)}


def test_label_spaces_of_another_order_are_read_by_name() -> None:
    peers = [Says(("car", "person"), ("person", LEFT, 0.8)), Says(("person", "dog"), ("person", LEFT, 0.6))]
    ensemble = BoxEnsemble(peers, [{"person": 0.5, "car": 0.5}, {"person": 0.5, "dog": 0.9}], LABELS)
    assert heard(ensemble) == {"person": pytest.approx(0.7)}


def test_a_peer_counts_by_how_well_it_finds_the_class() -> None:
    peers = [Says(("car",), ("car", LEFT, 0.9)), Says(("car",), ("car", LEFT, 0.3))]
    good, bad = {"car": 0.9}, {"car": 0.1}
    assert heard(BoxEnsemble(peers, [good, bad], LABELS))["car"] == pytest.approx(0.84)
    assert heard(BoxEnsemble(peers, [bad, good], LABELS))["car"] == pytest.approx(0.36)


def test_the_silence_of_a_peer_that_was_never_taught_a_class_says_nothing() -> None:
    tram = Says(("car", "tram"), ("tram", LEFT, 0.8))
    stranger = Says(("car", "person"), ("car", RIGHT, 0.9))
    ensemble = BoxEnsemble([tram, stranger], [{"car": 0.5, "tram": 0.5}, {"car": 0.5, "person": 0.5}], LABELS)
    assert heard(ensemble) == {"tram": pytest.approx(0.8)}, "and a car that only one of two sees is none"
    assert ensemble.taught == {0, 1, 2}


def test_a_peer_that_lies_alone_is_not_believed() -> None:
    honest = [Says(("car",), ("car", LEFT, 0.8)) for _ in range(2)]
    liar = Says(("car",), ("car", RIGHT, 1.0))
    ensemble = BoxEnsemble([*honest, liar], [{"car": 0.5}] * 3, LABELS)
    [found] = ensemble.predict([IMAGE], 0.1)
    assert found.boxes.tolist() == [list(LEFT)]


def test_a_class_that_nobody_was_taught_is_not_said_to_be_absent(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    ensemble = BoxEnsemble([Says(("car",), ("car", LEFT, 0.8))] * 2, [{"car": 0.5}] * 2, LABELS)
    [seen] = pseudo_label(ensemble, [Sample(tmp_path / "a.png", np.zeros((0, 5), np.float32))], LABELS)
    assert seen.boxes.tolist() == [
        [0.0, pytest.approx(0.2), pytest.approx(0.2), pytest.approx(0.4), pytest.approx(0.4)]
    ]
    assert ensemble.taught == {0}


def test_a_quality_is_asked_for_each() -> None:
    with pytest.raises(InvalidInput, match="2 predictors with 1 qualities"):
        BoxEnsemble([Says(("car",))] * 2, [{}], LABELS)
