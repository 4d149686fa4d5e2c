from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import yaml
from ultralytics.nn.autobackend import AutoBackend

from diredi.detectors import registry
from diredi.detectors.decoded_onnx import decode_in_file
from diredi.detectors.export import export_onnx
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.postprocess import prepare
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, NotFound
from diredi.labels import LabelSpace
from diredi_cli import frigate
from tests.unit.detectors.families import SMALL, of_families

NAMES = [param.values[0] for param in SMALL]


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    return path, export_onnx(small, path)


def raw(predictor, batch):
    with predictor._network.run(batch) as outputs:
        return outputs


@pytest.mark.slow
@pytest.mark.parametrize("architecture", of_families("yolo26-w0.0625", "yolov8-w0.0625", *NAMES))
def test_the_file_answers_as_the_torch_detector_does(architecture, labels, images, tmp_path):
    detector = registry.create(architecture, 64, labels, seed=1, device="cpu")
    detector.module.train()
    with torch.no_grad():
        for _ in range(5):
            detector.forward(torch.rand(4, 3, 64, 64))
    detector.module.eval()
    export_onnx(detector, tmp_path / "a.onnx")
    predictor = OnnxPredictor(tmp_path / "a.onnx", threads=1)
    batch, _ = prepare(images, 64)
    with torch.no_grad():
        outputs = detector.forward(torch.from_numpy(batch))
    classes, boxes = raw(predictor, batch)
    assert np.abs(classes - outputs.class_logits.numpy()).max() < 1e-3
    assert np.abs(boxes - outputs.box_logits.numpy()).max() < 1e-3
    for mine, theirs in zip(predictor.predict(images, 0.0001), detector.predict(images, 0.0001), strict=True):
        assert len(mine) == len(theirs) > 0
        assert np.abs(mine.scores - theirs.scores).max() < 1e-3


def test_the_file_describes_itself(exported, small):
    predictor = OnnxPredictor(exported[0], threads=1)
    assert predictor.spec == small.spec
    assert predictor.labels == small.labels


def test_the_batch_may_have_any_size(exported):
    predictor = OnnxPredictor(exported[0].read_bytes(), threads=1)
    for n in (1, 3, 9):
        assert raw(predictor, np.zeros((n, 3, 64, 64), np.float32))[0].shape[0] == n
    assert predictor.predict([]) == []


@pytest.mark.slow
def test_equal_weights_give_an_equal_file_and_the_detector_stays_as_it_was(exported, small, tmp_path):
    before = small.weights()
    assert export_onnx(small, tmp_path / "again.onnx") == exported[1]
    assert (tmp_path / "again.onnx").read_bytes() == exported[0].read_bytes()
    after = small.weights()
    assert all(np.array_equal(before[n], after[n]) for n in before)
    assert list(tmp_path.iterdir()) == [tmp_path / "again.onnx"]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "no spec", "no strides", "other outputs"])
def test_a_file_that_is_no_exported_detector_is_refused(exported, damage, tmp_path):
    whole = exported[0].read_bytes()
    model = onnx.load_from_string(whole)
    if damage == "no spec":
        del model.metadata_props[:]
    elif damage == "no strides":
        kept = [p for p in model.metadata_props if p.key == "diredi.spec"]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
    elif damage == "other outputs":
        del model.graph.output[1]
    data = {"empty": b"", "text": b"no model" * 50, "cut": whole[: len(whole) // 2]}.get(damage)
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString() if data is None else data)
    with pytest.raises(CorruptData):
        OnnxPredictor(tmp_path / "bad.onnx", threads=1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"gone\.onnx"):
        OnnxPredictor(tmp_path / "gone.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", of_families("yolo26-w0.0625", "libreyolo9-w0.0625"))
def test_ultralytics_reads_the_file_with_decoded_boxes_and_finds_what_our_own_runtime_finds(
    architecture, labels, tmp_path
):
    export_onnx(registry.create(architecture, 64, labels, seed=1, device="cpu"), tmp_path / "a.onnx")
    decode_in_file(tmp_path / "a.onnx", tmp_path / "b.onnx")
    square = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    backend = AutoBackend(str(tmp_path / "b.onnx"), verbose=False)
    assert (tuple(backend.names.values()), backend.task, backend.stride) == (labels.names, "detect", 32)
    assert list(backend.imgsz) == [64, 64]
    rows = np.asarray(backend(torch.from_numpy(prepare([square], 64)[0])))[0].T
    [own] = OnnxPredictor(tmp_path / "a.onnx", threads=1).predict([square], 0.0001)
    best = rows[rows[:, 4:].max(1).argmax()]
    corners = np.concatenate([best[:2] - best[2:4] / 2, best[:2] + best[2:4] / 2])
    assert abs(best[4:].max() - own.scores[0]) < 1e-4
    assert best[4:].argmax() == own.classes[0]
    assert np.abs(np.clip(corners, 0, 64) - own.boxes[0]).max() < 0.01
    with pytest.raises(CorruptData, match="no detector of DiReDi's"):
        OnnxPredictor(tmp_path / "b.onnx")


def test_frigate_gets_a_label_map_and_lines_that_it_can_read():
    spec = DetectorSpec(architecture="libreyolo9t", image_size=320, labels=LabelSpace(names=("2 wheeler", "car: red")))
    first, second = frigate.label_map(spec).splitlines()
    assert dict([first.split(" ", 1), second.split(" ", 1)]) == {"0": "2 wheeler", "1": "car: red"}
    lines = yaml.safe_load(frigate.configuration(spec))
    assert lines["model"]["width"] == lines["model"]["height"] == 320
    assert lines["objects"]["track"] == ["2 wheeler", "car: red"]
