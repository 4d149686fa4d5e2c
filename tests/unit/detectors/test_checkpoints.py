"""Checkpoints that users name: read, never run."""

from __future__ import annotations

import gzip
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from ultralytics.nn import tasks

from diredi.detectors import registry
from diredi.detectors import ultralytics_network as networks
from diredi.detectors.onnx import OnnxPredictor
from diredi.errors import CorruptData, InvalidInput, NotFound, Unreachable
from diredi.labels import LabelSpace

pytestmark = pytest.mark.slow


def network_of(name: str, classes: int = 2, **yaml: str) -> networks.DetectionModel:
    """A network as Ultralytics makes it, with statistics that have moved, and settings that differ from its YAML."""
    recipe = {**networks.yaml_model_load(f"{name}.yaml"), **yaml}
    network = networks.DetectionModel(recipe, nc=classes, verbose=False)
    network.names = {i: f"thing {i}" for i in range(classes)}
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.rand(4, 3, 64, 64))
    return network.eval()


def checkpoint(path: Path, name: str = "yolov8n", classes: int = 2, **changes) -> Path:
    """What Ultralytics writes: the live network in half precision."""
    network = networks.DetectionModel(f"{name}.yaml", nc=classes, verbose=False).half()
    network.names = {i: f"thing {i}" for i in range(classes)}
    torch.save({"model": network, "ema": None, "epoch": -1, "train_args": {"lr0": 0.01}, **changes}, path)
    return path


def own_answers(path: Path, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class and box logits as Ultralytics itself computes them from a file, laid out as in `Outputs`."""
    content = torch.load(path, weights_only=False)
    network = (content["ema"] or content["model"]).float().eval()
    with torch.no_grad():
        said = network(images)[1]
    raw = said.get("one2many", said)
    boxes = raw["boxes"].view(len(images), 4, -1, raw["boxes"].shape[-1]).permute(0, 3, 1, 2)
    return raw["scores"].transpose(1, 2), boxes


@pytest.mark.parametrize(("name", "classes", "activation", "architecture"), [
    ("yolov8n", 2, "", "yolov8n-h64"), ("yolov8n", 80, "torch.nn.ReLU()", "yolov8n-relu"),
    ("yolo11n", 90, "torch.nn.LeakyReLU(0.1)", "yolo11n-h90-leakyrelu0.1"),
    ("yolo11n", 80, "nn.ReLU6()", "yolo11n-relu6"),
    ("yolo26n", 70, "", "yolo26n-h70"), ("yolo26n", 80, "torch.nn.Hardswish()", "yolo26n-hardswish"),
])  # fmt: skip
def test_a_checkpoint_becomes_a_detector_with_the_same_answers(name, classes, activation, architecture, tmp_path):
    network = network_of(name, classes, **({"activation": activation} if activation else {}))
    path = checkpoint(tmp_path / "best.pt", model=network.half())
    detector = registry.load(path, image_size=64, device="cpu")
    assert detector.spec.architecture == architecture
    assert detector.spec.labels.names == tuple(f"thing {i}" for i in range(classes))
    assert {str(a.dtype) for a in detector.weights().values()} == {"float32", "int64"}
    detector.save(tmp_path / "ours.safetensors")
    again = registry.load(tmp_path / "ours.safetensors", device="cpu")
    assert again.spec == detector.spec
    images = torch.rand(2, 3, 64, 64)
    scores, boxes = own_answers(path, images)
    for model in (detector, again):
        with torch.no_grad():
            outputs = model.forward(images)
        assert torch.allclose(outputs.class_logits, scores, atol=1e-4)
        assert torch.allclose(outputs.box_logits, boxes, atol=1e-4)


def _other_epsilon(network):
    network.model[3].bn.eps = 1e-5


def _other_stride(network):
    network.model[0].conv.dilation, network.model[0].conv.padding = (2, 2), (2, 2)


def _no_shortcut(network):
    network.model[2].m[0].add = False


def _one_layer_with_another_activation(network):
    network.model[4].cv1.act = torch.nn.ReLU()


def _an_unknown_activation(network):
    for layer in network.modules():
        if hasattr(layer, "act"):
            layer.act = torch.nn.Softplus()


def _other_pooling(network):
    network.model[9].m.kernel_size, network.model[9].m.padding = 3, 1


def _a_layer_that_reads_another(network):
    network.model[11].f = [-1, 4]


def _cells_of_another_size(network):
    network.model[-1].stride = torch.tensor([8.0, 16.0, 64.0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_epsilon, "eps of model.3.bn is 1e-05"),
        (_other_stride, "of model.0.conv is"),
        (_no_shortcut, "add of model.2.m.0 is False"),
        (_one_layer_with_another_activation, "model.4.cv1.act is ReLU in place of SiLU"),
        (_an_unknown_activation, "activation Softplus, which is not known"),
        (_other_pooling, "kernel_size of model.9.m is 3"),
        (_a_layer_that_reads_another, "f of model.11 is"),
        (_cells_of_another_size, "stride of model.22 is"),
    ],
)
def test_a_checkpoint_that_computes_otherwise_with_the_same_shapes_is_refused(change, said, tmp_path):
    network = networks.DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    network.names = {0: "car", 1: "bus"}
    change(network)
    with pytest.raises(InvalidInput, match=f"best.pt .*{said}"):
        registry.load(checkpoint(tmp_path / "best.pt", model=network), device="cpu")


@pytest.mark.parametrize(
    ("train_args", "args", "size"),
    [
        ({"imgsz": 320}, {}, 320),
        ({"imgsz": 320}, {"imgsz": 640}, 320),
        ({}, {"imgsz": 96}, 96),
        ({"imgsz": [64, 96]}, {}, 96),
        ({"imgsz": 300}, {}, 320),
        ({}, {}, 640),
    ],
)
def test_a_checkpoint_is_opened_at_the_size_that_it_was_trained_at(train_args, args, size, tmp_path):
    network = networks.DetectionModel("yolov8n.yaml", nc=1, verbose=False)
    network.names, network.args = {0: "car"}, args
    path = checkpoint(tmp_path / "best.pt", model=network, train_args=train_args)
    assert registry.load(path, device="cpu").spec.image_size == size
    assert registry.load(path, image_size=64, device="cpu").spec.image_size == 64


def test_a_size_that_no_detector_takes_is_said_with_the_file(tmp_path):
    path = checkpoint(tmp_path / "best.pt", train_args={"imgsz": 4096})
    with pytest.raises(InvalidInput, match=r"best.pt .*4096 will not do: use 32 to 2048"):
        registry.load(path, device="cpu")


def test_the_running_average_counts_where_a_checkpoint_has_both(tmp_path):
    model, ema = (network_of("yolov8n") for _ in range(2))
    detector = registry.load(checkpoint(tmp_path / "last.pt", model=model, ema=ema), image_size=64, device="cpu")
    weights, wanted = detector.weights(), ema.state_dict()
    assert np.array_equal(weights["model.0.conv.weight"], wanted["model.0.conv.weight"].numpy())


def test_a_network_that_was_spread_over_devices_is_unwrapped(tmp_path):
    network = network_of("yolov8n")
    detector = registry.load(checkpoint(tmp_path / "best.pt", model=torch.nn.DataParallel(network)), device="cpu")
    assert np.array_equal(
        detector.weights()["model.0.conv.weight"], network.state_dict()["model.0.conv.weight"].numpy()
    )


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


def _torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 4, 1), torch.rand(1, 3, 8, 8)), path)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")


def _damaged(path: Path) -> None:
    content = bytearray(checkpoint(path).read_bytes())
    content[content.index(b"ultralytics")] ^= 1
    path.write_bytes(content)


def _named(module: str) -> Callable[[Path], None]:
    """A checkpoint whose network is of a class that is not here."""

    def write(path: Path) -> None:
        package, _, name = module.rpartition(".")
        with pytest.MonkeyPatch.context() as patch:
            for depth in range(1, len(package.split(".")) + 1):
                part = ".".join(package.split(".")[:depth])
                patch.setitem(sys.modules, part, sys.modules.get(part, ModuleType(part)))
            patch.setattr(sys.modules[package], name, kind := type(name, (torch.nn.Linear,), {}), raising=False)
            kind.__module__, kind.__qualname__ = package, name
            torch.save({"model": kind(1, 1)}, path)

    return write


FILES = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_bytes(b"not a checkpoint"), "not a PyTorch checkpoint"),
    "pointer": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "page": (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html><title>Sign in"), "web page"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "compressed": (lambda path: path.write_bytes(gzip.compress(b"weights")), "unpack"),
    "safetensors": (lambda path: path.write_bytes(b"\x02\0\0\0\0\0\0\0{}"), "ends with .safetensors"),
    "old pickle": (lambda path: path.write_bytes(pickle.dumps({"model": 1})), "pickle"),
    "other zip": (_zip, "archive without a model"),
    "cut": (lambda path: path.write_bytes(checkpoint(path).read_bytes()[:100_000]), "cut short"),
    "damaged": (_damaged, "names tltralytics"),
    "list": (lambda path: torch.save([1, 2], path), "holds no dictionary"),
    "no network": (lambda path: torch.save({"model": 3}, path), "holds no network"),
    "state dict": (lambda path: torch.save({"a": torch.zeros(2)}, path), "weights alone"),
    "state dict inside": (lambda path: torch.save({"model": {"module.a": torch.zeros(2)}}, path), "weights alone"),
    "torchscript": (_torchscript, "TorchScript"),
    "other program": (_named("models.yolo.Model"), "YOLOv5"),
    "quantised": (_named("torch.ao.nn.quantized.modules.conv.Conv2d"), "quantised"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint_is_said_so(kind, tmp_path):
    write, said = FILES[kind]
    write(tmp_path / "model.pt")
    with pytest.raises(CorruptData, match=rf"model\.pt .*{said}"):
        registry.load(tmp_path / "model.pt", image_size=64)


@pytest.mark.parametrize("kind", ["empty", "pointer", "page", "folder", "compressed"])
def test_what_is_no_file_of_ours_is_said_so_too(kind, tmp_path):
    write, said = FILES[kind]
    write(tmp_path / "model.safetensors")
    with pytest.raises(CorruptData, match=rf"model\.safetensors .*{said}"):
        registry.load(tmp_path / "model.safetensors")
    if kind != "folder":
        write(tmp_path / "model.onnx")
        with pytest.raises(CorruptData, match=rf"model\.onnx .*{said}"):
            OnnxPredictor(tmp_path / "model.onnx")


def test_a_network_of_another_kind_is_refused_by_name(tmp_path):
    torch.save({"model": torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3))}, tmp_path / "other.pt")
    with pytest.raises(InvalidInput, match=r"other\.pt holds a Sequential"):
        registry.load(tmp_path / "other.pt", image_size=64)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: tasks.SegmentationModel("yolov8n-seg.yaml", nc=1, verbose=False), "SegmentationModel"),
        (lambda: tasks.PoseModel("yolov8n-pose.yaml", nc=1, verbose=False), "PoseModel"),
        (lambda: tasks.OBBModel("yolov8n-obb.yaml", nc=1, verbose=False), "OBBModel"),
        (lambda: tasks.ClassificationModel("yolov8n-cls.yaml", nc=1, verbose=False), "ClassificationModel"),
        (lambda: tasks.DetectionModel("yolov9t.yaml", nc=1, verbose=False), "yolov9t.yaml"),
        (lambda: tasks.DetectionModel("yolov8n-p2.yaml", nc=1, verbose=False), "yolov8n-p2.yaml"),
    ],
)
def test_a_model_of_another_task_or_family_is_refused_by_what_it_is(model, said, tmp_path):
    network = model()
    network.names = {0: "car"}
    with pytest.raises(InvalidInput, match=rf"best\.pt .*{said}"):
        registry.load(checkpoint(tmp_path / "best.pt", model=network), image_size=64)


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_a_fused_checkpoint_is_refused_and_the_remedy_said(name, tmp_path):
    network = network_of(name).fuse(verbose=False)
    with pytest.raises(InvalidInput, match=r"is fused: .*unfused"):
        registry.load(checkpoint(tmp_path / "fused.pt", model=network), image_size=64)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["car", "bus"], ("car", "bus")),
        ({1: "bus", 0: "car"}, ("car", "bus")),
        ({"0": "car", "1": "bus"}, ("car", "bus")),
        ({0: 1, 1: 2}, ("1", "2")),
        ({0: "car", 1: "car"}, "two classes called 'car'"),
        ({1: "car", 2: "bus"}, "number its classes from 0"),
        ({0: "car"}, "predicts 2 classes and names 1"),
        ({0: "car", 1: "x" * 65}, "class names that cannot be used"),
        (None, "no class names"),
    ],
)
def test_class_names_are_read_in_every_form_or_it_is_said_why_not(names, found, tmp_path):
    network = networks.DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    network.names = names
    path = checkpoint(tmp_path / "best.pt", model=network)
    if isinstance(found, tuple):
        assert registry.load(path, image_size=64, device="cpu").labels.names == found
    else:
        with pytest.raises(InvalidInput, match=found):
            registry.load(path, image_size=64, device="cpu")


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
