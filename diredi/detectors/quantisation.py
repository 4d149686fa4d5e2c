"""Writes an exported detector with weights and activations of 8 bits. Needs onnx, which a site has and no edge node."""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from diredi.detectors.onnx import GOLDEN_KEY, OnnxPredictor
from diredi.detectors.postprocess import Floats, prepare
from diredi.detectors.predictor import Image
from diredi.detectors.runtimes.base import INPUT
from diredi.errors import InvalidInput
from diredi.evaluation.metrics import DetectionMetrics
from diredi.store.files import atomic_write

LEAST_IMAGES = 16
MOST_NOISE = 0.3
"""Neighbouring pixels of a picture are alike: their correlation is near 1. Below this it is no picture."""
_MARK = "diredi.quantised"


def quantise(model: Path | str, images: Sequence[Image], path: Path | str) -> str:
    """Write an exported detector with weights and activations of 8 bits, whole or not at all.

    How far the activations of each layer reach is measured on images. They should be those of the cameras that will
    run the file: ranges of other images cost accuracy, and noise ruins it. The file has no images in it, only their
    ranges. Convolutions are quantised, but for the last ones, whose outputs are the logits. Each output channel has a
    scale of its own (static quantisation, in the QDQ form of ONNX Runtime). Judge the file with `evaluate`.

    Args:
        model: The file that `export` wrote.
        images: height x width x 3, uint8, BGR; at least 16.
        path: Where the file goes.

    Returns:
        The digest "sha256:..." of the file, which `OnnxPredictor` runs as it does the one that it was made from.

    Raises:
        InvalidInput: There are too few images, most of them are no pictures, or the model is quantised already
            or has layers that say the same to all images.
        NotFound: There is no such file.
        CorruptData: It is no exported detector.

    Example:
        >>> import diredi
        >>> diredi.quantise("student.onnx", frames, "student-int8.onnx")      # doctest: +SKIP
    """
    size = OnnxPredictor(model, threads=1).input_size
    properties = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    properties.pop(GOLDEN_KEY, None)  # with 8 bits it finds other boxes
    if _MARK in properties:
        raise InvalidInput(f"{model} has been quantised already: take the file that it was made from")
    _check_images(images)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _silence():
        warnings.simplefilter("ignore")
        plain, quantised = Path(folder) / "plain.onnx", Path(folder) / "quantised.onnx"
        quant_pre_process(model, plain, skip_symbolic_shape=True)
        try:
            quantize_static(
                plain, quantised, _Reader(images, size), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv"],
                # On COCO, half a point better than the largest and smallest values.
                calibrate_method=CalibrationMethod.Percentile, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                nodes_to_exclude=sorted(_last_convolutions(onnx.load(plain))),
            )  # fmt: skip
        except ValueError as error:  # such as of a layer that says the same to all images
            raise InvalidInput(f"{model} cannot be calibrated with these images ({error}): train it first") from None
        made = onnx.load(quantised)
    onnx.helper.set_model_props(made, {**properties, _MARK: "int8"})
    data: bytes = made.SerializeToString(deterministic=True)
    atomic_write(Path(path), data)
    return "sha256:" + hashlib.sha256(data).hexdigest()


def explain_loss(
    before: DetectionMetrics,
    after: DetectionMetrics,
    *,
    most: float,
    most_of_a_class: float,
    least_boxes: int = 10,
    form: str = "8 bits",
) -> str:
    """Say where a quantised file has lost too much.

    Args:
        before: Metrics of the file that it was made from.
        after: Its own, on the same images.
        most: The most mAP50-95 that may be lost, 0 to 1.
        most_of_a_class: The most AP50-95 that one class may lose, 0 to 1.
        least_boxes: Classes with fewer boxes than this are only in the mean.
        form: What it has that the other one has not, for the sentence.

    Returns:
        A part of a sentence; empty where it has not.
    """
    lost = {
        name: metrics.ap50_95 - after.per_class[name].ap50_95
        for name, metrics in before.per_class.items()
        if metrics.boxes >= least_boxes
    }
    if before.map50_95 - after.map50_95 > most:
        return f"with {form} the model loses {100 * (before.map50_95 - after.map50_95):.1f} points of mAP50-95"
    worst = max(lost, key=lambda name: lost[name], default=None)
    if worst is not None and lost[worst] > most_of_a_class:
        return f"with {form} the model loses {100 * lost[worst]:.1f} points of AP50-95 of the class {worst}"
    return ""


def explain_lost_class(
    before: Mapping[str, float],
    after: Mapping[str, float],
    boxes: Mapping[str, int],
    *,
    most: float,
    least_boxes: int = 10,
    form: str = "8 bits",
) -> str:
    """Say which class a quantised file finds less well at the confidence at which it reports.

    Average precision looks at the order of scores alone, and 8 bits may lower them all.

    Args:
        before: F1 of each class, 0 to 1, of the file that it was made from (`f1_by_class`).
        after: Its own.
        boxes: Labelled boxes of each class.
        most: The most F1 that one class may lose, 0 to 1.
        least_boxes: Classes with fewer boxes than this are left out.
        form: What it has that the other one has not, for the sentence.

    Returns:
        A part of a sentence; empty where there is none.
    """
    lost = {name: before[name] - after[name] for name in before if boxes[name] >= least_boxes}
    worst = max(lost, key=lambda name: lost[name], default=None)
    if worst is None or lost[worst] <= most:
        return ""
    return f"with {form} the model loses {100 * lost[worst]:.1f} points of F1 of the class {worst} as it is reported"


def _check_images(images: Sequence[Image]) -> None:
    if len(images) < LEAST_IMAGES:
        raise InvalidInput(
            f"{len(images)} images are too few to calibrate with: take {LEAST_IMAGES} or more of the cameras' own"
        )
    strange = sum(not _is_picture(image) for image in images)
    if 2 * strange > len(images):
        raise InvalidInput(
            f"{strange} of {len(images)} images are noise or of one colour: calibrate with frames of the cameras "
            "that will run the file"
        )


def _is_picture(image: Image) -> bool:
    grey = image.astype(np.float32).mean(2)
    left, right = grey[:, :-1].ravel(), grey[:, 1:].ravel()
    if not left.std() or not right.std():
        return False
    return float(np.corrcoef(left, right)[0, 1]) >= MOST_NOISE


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Gives ONNX Runtime one image after the other."""

    def __init__(self, images: Sequence[Image], size: tuple[int, int]) -> None:
        self._batches: Iterator[Floats] = (prepare([image], size)[0] for image in images)

    def get_next(self) -> dict[str, Floats] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _last_convolutions(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes from the outputs back to the first convolution on each way."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found: set[str] = set()
    ahead = [output.name for output in model.graph.output]
    while ahead:
        node = makers.get(ahead.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            if node.op_type != "Conv":
                ahead += node.input
    return found


@contextmanager
def _silence() -> Iterator[None]:
    """Keep off the terminal what ONNX Runtime prints, and its advice to prepare the model, which it has been."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
