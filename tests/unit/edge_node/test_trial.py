"""Files that would harm a node are tried in a process of their own, and refused there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from diredi.detectors.golden import add_golden_frames, explain_golden_difference
from diredi.detectors.onnx import GOLDEN_KEY, STRIDES_KEY, OnnxPredictor
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, InvalidInput
from diredi.labels import LabelSpace
from edge_node.trial import OtherBoxes, try_release

SPEC = DetectorSpec(architecture="of-a-test", image_size=64, labels=LabelSpace(names=("car",)))
ANCHORS = 8 * 8 + 4 * 4 + 2 * 2
LOGITS = np.full((1, ANCHORS, 1), -9, np.float32)
BOXES = np.zeros((1, ANCHORS, 4, 1), np.float32)
FRAME = np.zeros((48, 64, 3), np.uint8)


def write(path: Path, nodes: Sequence[onnx.NodeProto] = (), name: str = "images", boxes: str = "b") -> Path:
    """A detector that finds nothing, and what a test adds to it: nodes make `b` where `boxes` names something else."""
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["c"], ["class_logits"]),
         helper.make_node("Identity", [boxes], ["box_logits"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 64, 64])],
        [helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, [1, ANCHORS, 1]),
         helper.make_tensor_value_info("box_logits", TensorProto.FLOAT, [1, ANCHORS, 4, 1])],
        [numpy_helper.from_array(LOGITS, "c"), numpy_helper.from_array(BOXES, "b"),
         numpy_helper.from_array(np.array(2**62, np.int64), "many"), numpy_helper.from_array(np.array(True), "yes"),
         numpy_helper.from_array(np.array([2**31], np.int64), "huge")],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("of.nobody", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    helper.set_model_props(model, {**SPEC.to_metadata(), STRIDES_KEY: "8,16,32"})
    path.write_bytes(model.SerializeToString())
    return path


def endless() -> onnx.NodeProto:
    """A loop that adds to the boxes and does not end."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "b"], ["y"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)],
    )
    return helper.make_node("Loop", ["many", "yes", "b"], ["made"], body=body)


def vast() -> list[onnx.NodeProto]:
    zeros = helper.make_node("ConstantOfShape", ["huge"], ["zeros"], value=helper.make_tensor("v", 1, [1], [0.0]))
    total = helper.make_node("ReduceSum", ["zeros"], ["total"], keepdims=0)
    return [zeros, total, helper.make_node("Add", ["b", "total"], ["made"])]


async def test_a_sound_file_passes(tmp_path: Path) -> None:
    await try_release(write(tmp_path / "a.onnx"), FRAME, threads=1, time_s=120, memory_mib=2048)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["never answers", "takes all memory", "unknown operator", "another interface"])
async def test_a_file_that_would_harm_the_node_is_refused_with_the_reason(tmp_path: Path, harm: str) -> None:
    file, time_s = tmp_path / "a.onnx", 120.0
    if harm == "never answers":
        write(file, [endless()], boxes="made")
        reason, time_s = "no answer within 3 s", 3
    elif harm == "takes all memory":
        write(file, vast(), boxes="made")
        reason = "fails on a frame|needs more than|not an ONNX model|ended the process"
    elif harm == "unknown operator":
        write(file, [helper.make_node("Shout", ["b"], ["made"], domain="of.nobody")], boxes="made")
        reason = "not an ONNX model"
    else:
        write(file, name="pictures")
        reason = "no detector of DiReDi's"
    with pytest.raises(InvalidInput, match=reason):
        await try_release(file, None, threads=1, time_s=time_s, memory_mib=2048)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "{folder}/weights.bin"])
async def test_a_file_with_a_part_that_no_digest_covers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    file = write(tmp_path / "a.onnx")
    for place in (tmp_path / "weights.bin", tmp_path.parent / "weights.bin"):
        place.write_bytes(BOXES.tobytes())
    model = onnx.load(file)
    boxes = next(tensor for tensor in model.graph.initializer if tensor.name == "b")
    boxes.ClearField("raw_data")
    boxes.data_location = TensorProto.EXTERNAL
    boxes.external_data.add(key="location", value=location.format(folder=tmp_path))
    file.write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorruptData):
        OnnxPredictor(file)


def finds_a_car(path: Path, shift: float = 0.0) -> Path:
    """A detector that finds one box in a light picture and none in a dark one, moved by `shift` cells."""
    write(path)
    model = onnx.load(path)
    scores = np.full((1, ANCHORS, 1), -9, np.float32)
    scores[0, 36] = 9
    boxes = BOXES.copy()
    boxes[0, 36] = [[2 + shift], [2], [2 - shift], [2]]
    for tensor, values in (("c", scores), ("b", boxes)):
        old = next(one for one in model.graph.initializer if one.name == tensor)
        old.CopyFrom(numpy_helper.from_array(values, tensor))
    path.write_bytes(model.SerializeToString())
    return path


async def test_a_device_that_finds_other_boxes_on_the_golden_frames_refuses_the_release(tmp_path: Path) -> None:
    picture = np.full((48, 64, 3), 200, np.uint8)
    file = finds_a_car(tmp_path / "a.onnx")
    assert add_golden_frames(file, [picture] * 5) == 2
    assert explain_golden_difference(OnnxPredictor(file)) == ""
    golden = OnnxPredictor(file).golden
    other = finds_a_car(tmp_path / "b.onnx", shift=1.5)  # as another processor might calculate
    model = onnx.load(other)
    helper.set_model_props(model, {**SPEC.to_metadata(), STRIDES_KEY: "8,16,32", GOLDEN_KEY: golden})
    other.write_bytes(model.SerializeToString())
    with pytest.raises(OtherBoxes, match="finds other boxes: 4 of 4 reported boxes differ"):
        await try_release(other, None, threads=1, time_s=120, memory_mib=2048)


def test_golden_frames_are_pictures_on_which_something_is_found(tmp_path: Path) -> None:
    file = write(tmp_path / "a.onnx")
    before = file.read_bytes()
    assert add_golden_frames(file, [FRAME] * 5) == 0 and file.read_bytes() == before
    assert explain_golden_difference(OnnxPredictor(file)) == ""


def test_golden_frames_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    file = write(tmp_path / "a.onnx")
    model = onnx.load(file)
    for golden in ("[", '[{"jpeg": "AAAA", "boxes": [], "scores": [], "classes": []}]', '[{"boxes": 3}]'):
        helper.set_model_props(model, {**SPEC.to_metadata(), STRIDES_KEY: "8,16,32", GOLDEN_KEY: golden})
        file.write_bytes(model.SerializeToString())
        with pytest.raises(CorruptData, match="golden frames of the model cannot be read"):
            explain_golden_difference(OnnxPredictor(file))
