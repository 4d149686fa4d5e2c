"""Eight bits, calibrated with the pictures of a site: judged as the file that runs, or refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import diredi
from diredi.detectors import registry
from diredi.detectors.export import export_onnx
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Image
from diredi.detectors.quantisation import LEAST_IMAGES, explain_loss, explain_lost_class
from diredi.errors import InvalidInput
from diredi.evaluation.detection import Matches, f1_by_class
from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics
from diredi.labels import LabelSpace
from diredi.store.blobs import digest_of_file
from diredi_cli.main import run
from tests.unit.diredi_demo.test_checks import data_set


def pictures(number: int = LEAST_IMAGES) -> list[Image]:
    """Smooth pictures, each another."""
    small = np.random.default_rng(0).integers(0, 255, (number, 6, 8, 3), np.uint8)
    return [np.asarray(cv2.resize(one, (64, 48), interpolation=cv2.INTER_CUBIC), np.uint8) for one in small]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    detector = registry.create("yolo11-w0.0625", 64, ["car"], 0, device="cpu")
    with torch.no_grad():
        for parameter in detector.module.parameters():
            parameter.add_(0.02)
    export_onnx(detector, path)
    return path


@pytest.mark.slow
def test_the_file_is_smaller_says_what_it_is_and_answers_as_the_one_before(file: Path, tmp_path: Path) -> None:
    digest = diredi.quantise(file, pictures(), tmp_path / "int8.onnx")
    assert digest == digest_of_file(tmp_path / "int8.onnx").digest
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * file.stat().st_size
    before, after = OnnxPredictor(file, 1), OnnxPredictor(tmp_path / "int8.onnx", 1)
    assert after.spec == before.spec
    frame = np.stack([cv2.resize(pictures()[0], (64, 64)).transpose(2, 0, 1)]).astype(np.float32) / 255
    with before._network.run(frame) as (theirs, _), after._network.run(frame) as (ours, _):
        assert 0 < np.abs(theirs - ours).max() < 1
    with pytest.raises(InvalidInput, match="quantised already"):
        diredi.quantise(tmp_path / "int8.onnx", pictures(), tmp_path / "twice.onnx")


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([], "0 images are too few"),
        (pictures(LEAST_IMAGES - 1), "15 images are too few"),
        (list(np.random.default_rng(0).integers(0, 255, (16, 48, 64, 3), np.uint8)), "16 of 16 images are noise"),
        ([np.full((48, 64, 3), 114, np.uint8)] * 16, "16 of 16 images are noise or of one colour"),
    ],
)
def test_a_calibration_without_pictures_is_refused_and_writes_nothing(
    file: Path, tmp_path: Path, images: list[Image], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        diredi.quantise(file, images, tmp_path / "int8.onnx")
    assert list(tmp_path.iterdir()) == []


def metrics(**classes: tuple[float, int]) -> DetectionMetrics:
    per_class = {name: ClassMetrics(ap50=ap, ap50_95=ap, boxes=boxes) for name, (ap, boxes) in classes.items()}
    mean = sum(ap for ap, _ in classes.values()) / len(classes)
    return DetectionMetrics(map50=mean, map50_95=mean, per_class=per_class, images=9, precision=1, recall=1, f1=1)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"car": (0.8, 50), "dog": (0.595, 50), "cat": (0.4, 9)}, ""),
        ({"car": (0.7, 50), "dog": (0.6, 50), "cat": (0.4, 9)}, "loses 3.3 points of mAP50-95"),
        ({"car": (0.74, 50), "dog": (0.65, 50), "cat": (0.4, 9)}, "loses 6.0 points of AP50-95 of the class car"),
        ({"car": (0.8, 50), "dog": (0.7, 50), "cat": (0.3, 9)}, ""),
    ],
)
def test_what_has_lost_too_much_in_the_mean_or_in_one_class_is_refused(
    after: dict[str, tuple[float, int]], said: str
) -> None:
    before = metrics(car=(0.8, 50), dog=(0.6, 50), cat=(0.4, 9))
    assert said in explain_loss(before, metrics(**after), most=0.01, most_of_a_class=0.05)
    assert said or not explain_loss(before, metrics(**after), most=0.01, most_of_a_class=0.05)


def test_a_class_that_is_reported_less_often_is_refused_though_the_order_of_scores_is_the_same() -> None:
    scores, right = np.array([0.4, 0.4, 0.3, 0.9]), np.array([True, True, True, False])
    before, after = (
        Matches(np.zeros(4, np.int64), np.array([0, 0, 0, 1]), values, right, np.array([[3, 1]]))
        for values in (scores, scores - 0.12)
    )
    labels = LabelSpace(names=("car", "dog"))
    f1 = [f1_by_class(one, labels, 0.25) for one in (before, after)]
    assert f1 == [{"car": 1.0, "dog": 0.0}, {"car": pytest.approx(0.8), "dog": 0.0}]
    said = explain_lost_class(*f1, boxes={"car": 30, "dog": 10}, most=0.05)
    assert said == "with 8 bits the model loses 20.0 points of F1 of the class car as it is reported"
    assert explain_lost_class(*f1, boxes={"car": 9, "dog": 10}, most=0.05) == ""


def test_the_command_wants_images_of_the_site(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = data_set(tmp_path / "data", ["car"]), tmp_path / "int8.onnx"
    assert run(["model", "quantise", str(file), "--data", str(data), "--out", str(out)]) == 2
    assert "too few to calibrate with" in capsys.readouterr().err
    assert not out.exists()
