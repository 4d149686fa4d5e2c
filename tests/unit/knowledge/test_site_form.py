"""A site writes a release in a form of its own, with 8 bits or a wide input, and only one that loses little."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from cloud_server import starter
from diredi.data.dataset import Sample, load
from diredi.data.images import read_image
from diredi.data.sources import resolve
from diredi.data.yolo import labels_text
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


@pytest.fixture(scope="module")
def tiny(spec: OverlaySpec, tmp_path_factory: pytest.TempPathFactory) -> OverlaySpec:
    """A release that has learned nothing, and has nothing to lose."""
    onnx = tmp_path_factory.mktemp("tiny") / "student.onnx"
    detector = registry.create("yolo11-w0.0625", 64, load(spec.data).names, 0, device="cpu")
    with torch.no_grad():
        for parameter in detector.module.parameters():
            parameter.add_(0.02)
    export_onnx(detector, onnx)
    return spec.model_copy(update={"onnx": onnx})


@pytest.mark.slow
def test_the_release_with_8_bits_is_judged_as_the_very_file(tiny: OverlaySpec, tmp_path: Path) -> None:
    made = overlay.main(tiny, tmp_path, lambda _: None)
    assert made.quantised and made.overlay is None and made.onnx is not None and not made.left_out
    assert made.onnx.bytes < 0.6 * tiny.onnx.stat().st_size
    assert OnnxPredictor(made.onnx.path).spec == OnnxPredictor(tiny.onnx).spec
    assert made.after.images == made.before.images == 8


def cut(sample: Sample, folder: Path) -> None:
    """Write the middle of an image, three fifths as high as it is wide, and the boxes in it."""
    image = read_image(sample.image)
    side = len(image)
    middle = image[side // 5 : side * 4 // 5]
    high = np.clip((sample.boxes[:, 2] - sample.boxes[:, 4] / 2 - 0.2) / 0.6, 0, 1)
    low = np.clip((sample.boxes[:, 2] + sample.boxes[:, 4] / 2 - 0.2) / 0.6, 0, 1)
    boxes = sample.boxes.copy()
    boxes[:, 2], boxes[:, 4] = (high + low) / 2, low - high
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "images" / f"{sample.image.stem}.png").write_bytes(cv2.imencode(".png", middle)[1].tobytes())
    (folder / "labels" / f"{sample.image.stem}.txt").write_text(labels_text(boxes[boxes[:, 4] > 0.1]))


@pytest.mark.slow
def test_the_release_of_wide_cameras_gets_a_wide_input_and_finds_as_much(spec: OverlaySpec, tmp_path: Path) -> None:
    scenes = load(spec.data)
    for split in ("train", "val"):
        for sample in scenes.split(split):  # type: ignore[arg-type]
            cut(sample, tmp_path / split)
    places = {split: str(tmp_path / split / "images") for split in ("train", "val")}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**places, "names": list(scenes.names)}))
    wanted = {"data": tmp_path / "data.yaml", "quantise": False, "fit_input": True, "max_loss": 0.1}
    made = overlay.main(spec.model_copy(update={**wanted, "max_class_loss": 0.3}), tmp_path, lambda _: None)
    assert made.input_size is not None and made.onnx is not None, made.left_out
    square, wide = OnnxPredictor(spec.onnx), OnnxPredictor(made.onnx.path)
    size = square.spec.image_size
    assert (wide.spec, wide.input_size) == (square.spec, (math.ceil(0.6 * size / 32) * 32, size))
    assert made.after.map50 > made.before.map50 - 0.1


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ([(360, 640), (1080, 1920)], (384, 640)),
        ([(480, 640), (360, 640)], (480, 640)),
        ([(640, 360)], (640, 384)),
        ([(640, 360), (360, 640)], None),
        ([(600, 640)], (608, 640)),
        ([(620, 640)], None),
    ],
)
def test_an_input_has_room_for_all_that_the_cameras_of_a_site_see(
    tmp_path: Path, shapes: list[tuple[int, int]], size: tuple[int, int] | None
) -> None:
    samples = []
    for number, (height, width) in enumerate(shapes):
        path = tmp_path / f"{number}.png"
        path.write_bytes(cv2.imencode(".png", np.zeros((height, width), np.uint8))[1].tobytes())
        samples.append(Sample(path, np.zeros((0, 5), np.float32)))
    assert overlay.find_input_size(samples, 640) == size


@pytest.mark.slow
def test_the_release_stays_as_it_is_where_8_bits_lose_too_much_or_cannot_be_calibrated(
    tiny: OverlaySpec, tmp_path: Path
) -> None:
    strict = overlay.main(tiny.model_copy(update={"max_loss": -1.0}), tmp_path, lambda _: None)
    assert strict.onnx is None and "points of mAP50-95" in strict.left_out
    few = overlay.main(tiny.model_copy(update={"calibration_images": 4}), tmp_path, lambda _: None)
    assert few.onnx is None and not few.quantised and "4 images are too few" in few.left_out
    assert few.after == few.before
