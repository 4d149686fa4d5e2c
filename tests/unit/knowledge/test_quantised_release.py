"""A site writes a release with 8 bits for its edge nodes, and only one that loses nothing that matters."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud_server import starter
from diredi.data.sources import resolve
from diredi.detectors import registry
from diredi.detectors.export import export_onnx
from diredi.detectors.onnx import OnnxPredictor
from diredi.knowledge.jobs import overlay
from diredi.knowledge.jobs.specs import OverlaySpec


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> OverlaySpec:
    folder = tmp_path_factory.mktemp("release")
    student = starter.unpack(folder).student
    export_onnx(registry.load(student, device="cpu"), folder / "student.onnx")
    data = resolve("scenes:presumed", folder, train=16, val=8)
    return OverlaySpec(data=data, student=student, onnx=folder / "student.onnx", overlay=False, quantise=True)


def test_the_release_with_8_bits_is_judged_as_the_very_file(spec: OverlaySpec, tmp_path: Path) -> None:
    generous = {"max_loss": 0.5, "max_class_loss": 0.5}  # on eight images a point is one box
    made = overlay.main(spec.model_copy(update=generous), tmp_path, lambda _: None)
    assert made.quantised and made.overlay is None and made.onnx is not None and not made.quantised_problem
    assert made.onnx.bytes < 0.6 * spec.onnx.stat().st_size
    assert OnnxPredictor(made.onnx.path).spec == OnnxPredictor(spec.onnx).spec
    assert 0 < abs(made.after.map50_95 - made.before.map50_95) < 0.5


def test_the_release_stays_as_it_is_where_8_bits_lose_too_much_or_cannot_be_calibrated(
    spec: OverlaySpec, tmp_path: Path
) -> None:
    strict = overlay.main(spec.model_copy(update={"max_loss": -1.0}), tmp_path, lambda _: None)
    assert strict.onnx is None and "points of mAP50-95" in strict.quantised_problem
    few = overlay.main(spec.model_copy(update={"calibration_images": 4}), tmp_path, lambda _: None)
    assert few.onnx is None and not few.quantised and "4 images are too few" in few.quantised_problem
    assert few.after == few.before
