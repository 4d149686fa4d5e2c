"""Results in the hands of others: supervision, Ultralytics, pandas; and one sentence where these are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diredi

ROOT = Path(__file__).resolve().parents[3]
LABELS = diredi.LabelSpace(names=("car", "person"))
BOXES = [[2.0, 3.0, 20.0, 30.0], [5.0, 5.0, 9.0, 9.0]]


@pytest.fixture
def found() -> diredi.Detections:
    return diredi.Detections.of(BOXES, scores=[0.4, 0.9], classes=[0, 1])


def same(one: diredi.Detections, other: diredi.Detections) -> bool:
    pairs = ((one.boxes, other.boxes), (one.scores, other.scores), (one.classes, other.classes))
    return all(a.dtype == b.dtype and np.allclose(a, b) for a, b in pairs)


def test_detections_come_best_first_whatever_order_they_are_given_in(found: diredi.Detections) -> None:
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])
    assert found.classes.tolist() == [1, 0]
    assert found.boxes[0].tolist() == BOXES[1]


def test_supervision_gets_the_boxes_with_the_names_of_classes_and_gives_them_back(found: diredi.Detections) -> None:
    theirs = found.to_supervision(LABELS)
    assert theirs.data["class_name"].tolist() == ["person", "car"]
    assert same(diredi.Detections.from_supervision(theirs), found)
    assert same(
        diredi.Detections.from_supervision(theirs[theirs.confidence > 0.5]), diredi.Detections.of(BOXES[1], 0.9, 1)
    )


def test_nothing_found_is_nothing_for_supervision_too() -> None:
    nothing = diredi.Detections.of([], [], [])
    assert len(nothing.to_supervision(LABELS)) == 0
    assert len(diredi.Detections.from_supervision(nothing.to_supervision())) == 0


def test_ultralytics_gets_the_boxes_and_gives_them_back(found: diredi.Detections) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    theirs = found.to_ultralytics(image, LABELS, "gate.jpg")
    assert theirs.names == {0: "car", 1: "person"}
    assert same(diredi.Detections.from_ultralytics(theirs), found)
    assert theirs.plot().shape == image.shape


def test_what_is_no_result_of_a_detector_is_refused() -> None:
    with pytest.raises(diredi.InvalidInput, match="no boxes"):
        diredi.Detections.from_ultralytics(object())


def test_metrics_are_a_table_with_a_row_for_each_class_and_one_for_all() -> None:
    per_class = {"car": diredi.ClassMetrics(ap50=0.5, ap50_95=0.25, boxes=3)}
    metrics = diredi.DetectionMetrics(
        map50=0.5, map50_95=0.25, precision=0.6, recall=0.7, f1=0.65, per_class=per_class, images=4
    )
    table = metrics.to_pandas()
    assert list(table.index) == ["car", "all"]
    assert table.loc["car", ["ap50", "ap50_95", "boxes"]].tolist() == [0.5, 0.25, 3]
    assert table.loc["all", "f1"] == 0.65
    assert "mAP50 50.0 %" in str(metrics)


@pytest.mark.parametrize(
    ("missing", "call"),
    [
        ("supervision", "diredi.Detections.of([], [], []).to_supervision()"),
        ("pandas", "diredi.DetectionMetrics(map50=0, map50_95=0, precision=0, recall=0, f1=0, per_class={}, images=1)"
                   ".to_pandas()"),
    ],
)  # fmt: skip
def test_a_package_that_is_missing_is_named_in_one_sentence(missing: str, call: str) -> None:
    head = f"import sys; sys.modules[{missing!r}] = None; import diredi"
    code = f"{head}\ntry:\n    {call}\nexcept diredi.InvalidInput as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{missing} is not installed: run `pip install {missing}`"
