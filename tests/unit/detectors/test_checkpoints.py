"""Checkpoints that users name: read, never run."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from diredi.detectors import registry
from diredi.detectors import ultralytics_network as networks
from diredi.errors import CorruptData, InvalidInput, NotFound, Unreachable
from diredi.labels import LabelSpace


def checkpoint(path: Path, name: str = "yolov8n", classes: int = 2, **changes) -> Path:
    """What Ultralytics writes: the live network in half precision."""
    network = networks.DetectionModel(f"{name}.yaml", nc=classes, verbose=False).half()
    network.names = {i: f"thing {i}" for i in range(classes)}
    torch.save({"model": network, "ema": None, "epoch": -1, "train_args": {"lr0": 0.01}, **changes}, path)
    return path


@pytest.mark.parametrize(("name", "classes", "architecture"), [
    ("yolov8n", 2, "yolov8n-h64"), ("yolov8n", 80, "yolov8n"),
    ("yolo11n", 90, "yolo11n-h90"), ("yolo26n", 70, "yolo26n-h70"),
])  # fmt: skip
def test_a_checkpoint_becomes_a_detector_with_the_same_answers(name, classes, architecture, tmp_path):
    path = checkpoint(tmp_path / "best.pt", name, classes)
    detector = registry.load(path, image_size=64, device="cpu")
    assert detector.spec.architecture == architecture
    assert detector.spec.labels.names == tuple(f"thing {i}" for i in range(classes))
    original = torch.load(path, weights_only=False)["model"].float().eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = original(images)[1]
        scores = wanted.get("one2many", wanted)["scores"].transpose(1, 2)
        assert torch.allclose(detector.forward(images).class_logits, scores, atol=1e-4)
    assert {str(a.dtype) for a in detector.weights().values()} == {"float32", "int64"}
    detector.save(tmp_path / "ours.safetensors")
    assert registry.load(tmp_path / "ours.safetensors", device="cpu").spec == detector.spec


def test_a_checkpoint_of_a_running_training_is_read_from_what_it_has(tmp_path):
    network = networks.DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    detector = registry.load(checkpoint(tmp_path / "last.pt", model=None, ema=network), image_size=64, device="cpu")
    assert np.array_equal(
        detector.weights()["model.0.conv.weight"], network.state_dict()["model.0.conv.weight"].numpy()
    )


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (exec, (f"open({str(self.trace)!r}, 'w').write('run')",))


class Sneaky:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (eval, (f"__import__('os').mknod({str(self.trace)!r})",))


@pytest.mark.parametrize("kind", [Malicious, Sneaky])
@pytest.mark.parametrize("key", ["model", "train_args"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(kind, key, tmp_path):
    trace = tmp_path / "trace"
    torch.save({"model": OrderedDict(), key: kind(trace)}, tmp_path / "evil.pt")
    with pytest.raises(CorruptData, match=r"names (__builtin__|builtins)\.(exec|eval)"):
        registry.load(tmp_path / "evil.pt", image_size=64)
    assert not trace.exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert trace.exists(), "the pickle was a live one: plain loading runs it"


def test_classes_that_are_accepted_are_never_built(tmp_path, monkeypatch):
    path = checkpoint(tmp_path / "best.pt")

    def refuse(self, state):
        raise AssertionError("code of a class in the checkpoint has run")

    monkeypatch.setattr(torch.nn.Module, "__setstate__", refuse)
    registry.load(path, image_size=64, device="cpu")


def test_reading_a_checkpoint_leaves_no_class_allowed_for_others(tmp_path):
    before = set(torch.serialization.get_safe_globals())  # torch keeps them in no order
    registry.load(checkpoint(tmp_path / "best.pt"), image_size=64, device="cpu")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    "kind", ["empty", "text", "old pickle", "other zip", "cut", "damaged", "list", "no network", "state dict"]
)
def test_a_file_that_is_no_checkpoint_is_said_so(kind, tmp_path):
    path = tmp_path / "model.pt"
    if kind == "old pickle":
        path.write_bytes(pickle.dumps({"model": 1}))
    elif kind == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "hello")
    elif kind == "cut":
        path.write_bytes(checkpoint(tmp_path / "whole.pt").read_bytes()[:100_000])
    elif kind == "damaged":
        content = bytearray(checkpoint(tmp_path / "whole.pt").read_bytes())
        content[content.index(b"ultralytics")] ^= 1
        path.write_bytes(content)
    elif kind in ("empty", "text"):
        path.write_bytes(b"" if kind == "empty" else b"not a checkpoint")
    else:
        content = {"list": [1, 2], "no network": {"model": 3}, "state dict": {"a": torch.zeros(2)}}[kind]
        torch.save(content, path)
    with pytest.raises(CorruptData, match=r"model\.pt"):
        registry.load(path, image_size=64)


def test_a_network_of_another_kind_is_refused_by_name(tmp_path):
    torch.save({"model": torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3))}, tmp_path / "other.pt")
    with pytest.raises(InvalidInput, match=r"other\.pt"):
        registry.load(tmp_path / "other.pt", image_size=64)


def test_a_fused_checkpoint_is_refused(tmp_path):
    network = networks.DetectionModel("yolov8n.yaml", nc=2, verbose=False).eval().fuse(verbose=False)
    with pytest.raises((InvalidInput, CorruptData), match="unfused"):
        registry.load(checkpoint(tmp_path / "fused.pt", model=network), image_size=64)


def test_a_name_that_nobody_publishes_is_not_asked_for(tmp_path):
    with pytest.raises(NotFound, match="yolo99z"):
        registry.load(tmp_path / "yolo99z.pt")


def test_an_official_name_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="copy it here"):
        registry.load(tmp_path / "yolo11n.pt")


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_official_weights_score_on_real_images(name, shared_data):
    from diredi.data.dataset import load
    from diredi.evaluation.detection import evaluate

    detector = registry.load(shared_data / "weights" / f"{name}.pt", image_size=320, device="cpu")
    assert len(detector.labels) == 80
    samples = load(shared_data / "detection" / "coco128" / "data.yaml").with_labels(detector.labels).val[:24]
    assert evaluate(detector, samples, detector.labels).map50 > 0.4
    grown = detector.expand_classes(LabelSpace(names=(*detector.labels.names, "forklift")))
    assert len(grown.labels) == 81
