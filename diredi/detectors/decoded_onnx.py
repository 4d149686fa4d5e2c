"""The file that edge nodes run, as other programs read it: with decoded boxes. Needs `onnx` and no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from diredi.detectors.onnx import STRIDES_KEY, input_size_of
from diredi.detectors.postprocess import grid
from diredi.detectors.runtimes.base import INPUT
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData
from diredi.store.files import atomic_write

OUTPUT = "output0"


def decode_in_file(path: Path, out: Path) -> DetectorSpec:
    """Write an exported detector in the form of Ultralytics' exports: one output with decoded boxes.

    The input is one image, 1 x 3 x size x size, RGB in 0 to 1. The output is 1 x (4 + classes) x anchors: centre-x,
    centre-y, width and height in pixels of the input, then the score of each class; overlapping boxes are still to be
    suppressed. The metadata has `names`, `imgsz`, `stride` and `task` as Ultralytics writes them.

    Args:
        path: A file that `export` wrote.
        out: Where the new file goes, whole or not at all.

    Returns:
        What the detector is.

    Raises:
        CorruptData: The file is no exported detector.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf has errors of its own for each way in which bytes can be wrong
        raise CorruptData(f"{path} is not an ONNX model ({type(error).__name__}): export it again") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    spec = DetectorSpec.from_metadata(metadata)
    try:
        strides, size = [int(stride) for stride in metadata[STRIDES_KEY].split(",")], input_size_of(metadata, spec)
        bins = (
            {value.name: value for value in model.graph.output}["box_logits"].type.tensor_type.shape.dim[-1].dim_value
        )
    except (KeyError, ValueError, IndexError):
        raise CorruptData(f"{path} does not say its strides and outputs: export it again") from None
    anchors, steps = grid(size, strides)
    _append_decoding(model.graph, anchors, steps[:, None], bins)
    _name_shapes(model.graph, 4 + len(spec.labels.names), len(steps), size)
    helper.set_model_props(
        model,
        {
            **spec.to_metadata(),
            "description": f"{spec.architecture}, exported by DiReDi",
            "task": "detect",
            "names": str(dict(enumerate(spec.labels.names))),
            "imgsz": str(list(size)),
            "stride": str(max(strides)),
            "batch": "1",
            "channels": "3",
            "args": str({"batch": 1, "dynamic": False, "nms": False}),
        },
    )
    onnx.checker.check_model(model)
    atomic_write(out, model.SerializeToString(deterministic=True))
    return spec


def _append_decoding(graph: onnx.GraphProto, anchors: np.ndarray, strides: np.ndarray, bins: int) -> None:
    """Add what `postprocess.decode` does to the end of a graph, but for the suppression of overlapping boxes."""

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], name=f"decode/{output}", **attributes))
        return output

    box = "box_logits"
    if bins > 1:  # the mean of a distribution over whole strides
        share = node("Softmax", [box], "decode_share", axis=-1)
        box = node(
            "MatMul", [share, constant("decode_bins", np.arange(bins, dtype=np.float32)[:, None])], "decode_mean"
        )
    box = node("Squeeze", [box, constant("decode_last", np.array([-1]))], "decode_cells")
    box = node("Mul", [box, constant("decode_strides", strides)], "decode_pixels")
    half = constant("decode_half", np.array([2, 2]))
    graph.node.append(
        helper.make_node("Split", [box, half], ["decode_near", "decode_far"], name="decode/split", axis=-1)
    )
    centre = constant("decode_anchors", anchors)
    low = node("Sub", [centre, "decode_near"], "decode_low")
    high = node("Add", [centre, "decode_far"], "decode_high")
    middle = node(
        "Mul",
        [node("Add", [low, high], "decode_sum"), constant("decode_0.5", np.array(0.5, np.float32))],
        "decode_middle",
    )
    sides = node("Sub", [high, low], "decode_sides")
    scores = node("Sigmoid", ["class_logits"], "decode_scores")
    rows = node("Concat", [middle, sides, scores], "decode_rows", axis=-1)
    node("Transpose", [rows], OUTPUT, perm=[0, 2, 1])


def _name_shapes(graph: onnx.GraphProto, rows: int, anchors: int, size: tuple[int, int]) -> None:
    """Declare one image as the input, and the decoded boxes as the only output."""
    del graph.output[:], graph.input[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 3, *size]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, rows, anchors]))
