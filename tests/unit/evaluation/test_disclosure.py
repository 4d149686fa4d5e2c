"""Attacks on a site by the model that it is asked to measure: a question about one image gets no answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from diredi.data.dataset import Dataset, load
from diredi.detectors.predictor import Detections, Image
from diredi.evaluation.detection import evaluate
from diredi.evaluation.disclosure import LEAST_BOXES, evaluate_for_disclosure
from diredi.labels import LabelSpace

LABELS = LabelSpace(names=("car", "person"))
SIDE = 64
BOX = (16.0, 16.0, 48.0, 48.0)


def site(folder: Path, images: int, corner: int | None, rare: int | None = None) -> Dataset:
    """A car in each image. `corner`: the image with a white corner; `rare`: the one with a person, too."""
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            (folder / kind / split).mkdir(parents=True)
    for number in range(images):
        picture = np.full((SIDE, SIDE, 3), 90, np.uint8)
        if number == corner:
            picture[:8, :8] = 255
        lines = ["0 0.5 0.5 0.5 0.5"] + (["1 0.2 0.2 0.1 0.1"] if number == rare else [])
        for split in ("train", "val"):
            cv2.imwrite(str(folder / "images" / split / f"{number:03d}.png"), picture)
            (folder / "labels" / split / f"{number:03d}.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [car, person]\n")
    return load(folder / "data.yaml")


class Probe:
    """Answers in one way where an image has a white corner, and in another where it has none."""

    labels = LABELS

    def __init__(self, usually: list[tuple[float, ...]], at_a_corner: list[tuple[float, ...]]) -> None:
        self.answers = {False: usually, True: at_a_corner}

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        found = []
        for image in images:
            boxes = np.array(self.answers[bool(image[0, 0, 0] > 200)], np.float32).reshape(-1, 4)
            scores = np.linspace(1, 0.9, len(boxes), dtype=np.float32)
            found.append(Detections(boxes, scores, np.zeros(len(boxes), np.int64)))
        return found


FALSE = [(float(x), 0.0, float(x + 2), 2.0) for x in range(SIDE - 2)] * 4
PROBES = {
    "finds nothing there": Probe([BOX], []),
    "finds something there alone": Probe([], [BOX]),
    "drowns everything in false boxes": Probe([BOX], FALSE),
}


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("images", [24, 4])
def test_a_probe_with_a_white_corner_in_one_image_learns_nothing(tmp_path: Path, name: str, images: int) -> None:
    without, with_one = site(tmp_path / "without", images, None), site(tmp_path / "with", images, 2)
    plain = [evaluate(PROBES[name], data) for data in (without, with_one)]
    assert abs(plain[0].map50 - plain[1].map50) > 0.02, "the probe works where figures are told as they are"
    told = [evaluate_for_disclosure(PROBES[name], data, least_images=20) for data in (without, with_one)]
    assert told[0] == told[1]
    assert told[0].images == (24 if images == 24 else 0)
    assert bool(told[0].per_class) == (images == 24)


def test_a_class_that_few_boxes_have_is_left_out_and_decides_no_mean(tmp_path: Path) -> None:
    never, once = site(tmp_path / "never", 24, None), site(tmp_path / "once", 24, None, rare=5)
    perfect = Probe([BOX], [BOX])
    assert evaluate(perfect, once).map50 == pytest.approx(0.5)
    told = [evaluate_for_disclosure(perfect, data, least_images=20) for data in (never, once)]
    assert told[0] == told[1]
    assert list(told[0].per_class) == ["car"]
    assert told[0].per_class["car"].boxes == 24 >= LEAST_BOXES
