"""Writes a detector as an ONNX file that edge nodes run without torch."""

from __future__ import annotations

import hashlib
import warnings
from itertools import groupby
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from diredi.detectors.base import Detector, Outputs
from diredi.detectors.onnx import SIZE_KEY, STRIDES_KEY
from diredi.detectors.postprocess import sides
from diredi.detectors.runtimes.base import INPUT, OUTPUTS
from diredi.store.files import atomic_write

OPSET = 17


class _Raw(nn.Module):
    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.network = detector.module
        self._detector = [detector]  # in a list, so that it is not taken for a part of this one

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self._detector[0].forward(images)
        return outputs.class_logits.contiguous(), outputs.box_logits.contiguous()


def export_onnx(detector: Detector, path: Path | str, size: tuple[int, int] | None = None) -> str:
    """Write a detector as the ONNX file that edge nodes run, whole or not at all.

    It has fp32 weights, takes any number of images at once and gives the raw outputs; boxes are decoded beside it by
    `OnnxPredictor`. The detector is left as it was.

    Args:
        detector: The model.
        path: Where the file goes.
        size: Height and width of its input in pixels, multiples of 32, such as those of a wide camera; None for the
            square of the detector.

    Returns:
        The digest "sha256:..." of the file. Equal weights give equal bytes.

    Example:
        >>> import diredi
        >>> diredi.export(model, "student.onnx")                              # doctest: +SKIP
    """
    path = Path(path)
    part = path.with_name(path.name + ".graph")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        example = _traced(detector, part, size or sides(detector.spec.image_size))
        strides = ",".join(str(int(stride)) for stride, _ in groupby(example.strides.tolist()))
        model = onnx.load(part)
        _fix_shapes(model, example)
        shape = {} if size is None else {SIZE_KEY: f"{size[0]}x{size[1]}"}
        onnx.helper.set_model_props(model, {**detector.spec.to_metadata(), STRIDES_KEY: strides, **shape})
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString(deterministic=True)
        atomic_write(path, data)
    finally:
        part.unlink(missing_ok=True)
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _traced(detector: Detector, file: Path, size: tuple[int, int]) -> Outputs:
    """Writes the bare graph; returns what the detector says to an empty image."""
    training = detector.module.training
    detector.module.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that are constants by design
        example = torch.zeros(2, 3, *size, device=detector.device)
        outputs = detector.forward(example)
        torch.onnx.export(
            _Raw(detector).eval(),
            (example,),
            str(file),
            input_names=[INPUT],
            output_names=OUTPUTS,
            opset_version=OPSET,
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS)},
            dynamo=False,
        )
    detector.module.train(training)
    return outputs


def _fix_shapes(model: onnx.ModelProto, example: Outputs) -> None:
    """Says how large the outputs are, but for the batch: the tracer loses that in some networks, and readers ask."""
    for value in model.graph.output:
        sizes = getattr(example, value.name).shape[1:]
        for dimension, size in zip(value.type.tensor_type.shape.dim[1:], sizes, strict=True):
            dimension.dim_value = size
