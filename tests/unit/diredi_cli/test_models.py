"""Models on the command line: their own image size, and class names that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diredi.detectors import registry
from diredi.detectors.export import export_onnx
from diredi_cli.main import run
from tests.unit.diredi_demo.test_checks import data_set

Output = pytest.CaptureFixture[str]


def model(folder: Path, *names: str, size: int = 64) -> Path:
    path = folder / f"{'-'.join(names)}-{size}.safetensors"
    registry.create("yolo11-w0.0625", size, names, 0, device="cpu").save(path)
    return path


def test_eval_takes_the_models_own_size_and_says_it(tmp_path: Path, capsys: Output):
    data, weights = data_set(tmp_path / "data", ["car"]), model(tmp_path, "car", size=96)
    assert run(["eval", str(weights), "--data", str(data)]) == 0
    assert "96 px, the model's own" in capsys.readouterr().out
    assert run(["eval", str(weights), "--data", str(data), "--image-size", "64"]) == 0
    assert "64 px, and the model's own is 96" in capsys.readouterr().out
    assert run(["eval", str(weights), "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image_size"] == 96


@pytest.mark.slow
def test_an_exported_model_takes_no_other_size(tmp_path: Path, capsys: Output):
    data, onnx = data_set(tmp_path / "data", ["car"]), tmp_path / "model.onnx"
    export_onnx(registry.create("yolo11-w0.0625", 64, ["car"], 0, device="cpu"), onnx)
    assert run(["eval", str(onnx), "--data", str(data), "--image-size", "64"]) == 0
    assert run(["eval", str(onnx), "--data", str(data), "--image-size", "96"]) == 2
    assert "takes images of 64 pixels alone" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["eval", "none.pt"], ["train", "student", "--out", "x.safetensors"], ["demo"]])
def test_a_size_that_no_detector_takes_is_told_before_anything_else(command: list[str], capsys: Output):
    data = [] if command == ["demo"] else ["--data", "none.yaml"]
    assert run([*command, *data, "--image-size", "100"]) == 2
    assert "error: --image-size 100 is not a multiple of 32: take 96 or 128" in capsys.readouterr().err


@pytest.mark.slow
def test_eval_of_a_model_that_knows_no_class_of_the_data_says_how_to_rename(tmp_path: Path, capsys: Output):
    data = data_set(tmp_path / "data", ["Person", "bike"])
    assert run(["eval", str(model(tmp_path, "person")), "--data", str(data)]) == 2
    said = capsys.readouterr().err
    assert "no class in common" in said and "write 'Person' as 'person' in data.yaml" in said
    assert run(["eval", str(model(tmp_path, "bike", "person")), "--data", str(data)]) == 2
    data = data_set(tmp_path / "more", ["car", "persons"])
    assert run(["eval", str(model(tmp_path, "car", "person")), "--data", str(data)]) == 0


@pytest.mark.slow
def test_training_takes_the_size_of_its_models_and_says_it(tmp_path: Path, capsys: Output):
    data, out = data_set(tmp_path / "data", ["car"]), tmp_path / "out.safetensors"
    start, teacher = model(tmp_path, "car", size=64), model(tmp_path, "car", "bus", size=96)
    train = ["train", "student", "--data", str(data), "--out", str(out), "--epochs", "1", "-o", "batch=2"]
    assert run([*train, "--start", str(start), "--teacher", str(teacher)]) == 0
    assert "64 px, that of the weights to start from; the teacher had 96" in capsys.readouterr().out
    assert registry.load(out).spec.image_size == 64
    new = [*train, "--architecture", "yolo11-w0.0625", "--teacher", str(teacher)]
    assert run(new) == 0
    assert "96 px, that of the teacher" in capsys.readouterr().out
    assert run([*new, "--image-size", "64", "-o", "batch=1"]) == 0
    assert "64 px, as --image-size says; the teacher had 96" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["nan", "inf", "0"])
def test_a_number_that_no_training_can_have_is_told(value: str, tmp_path: Path, capsys: Output):
    command = ["train", "tutor", "--data", "none.yaml", "--out", str(tmp_path / "x.safetensors")]
    assert run([*command, "--epochs", value]) == 2
    assert run([*command, "-o", f"learning_rate=.{value}"]) == 2
    assert "unexpected" not in capsys.readouterr().err
