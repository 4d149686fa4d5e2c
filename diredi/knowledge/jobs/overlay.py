"""Site job: a release in a form of this site's own, judged as the very file that its edge nodes would run.

It has batch-norm statistics of the site's images, an input of the shape of these, 8 bits with ranges of these, or all
of it, each where it does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diredi.data.dataset import Dataset, Sample
from diredi.data.images import read_image
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.export import export_onnx
from diredi.detectors.onnx import OnnxPredictor
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate, evaluate_with_matches, f1_by_class
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.jobs import filling
from diredi.knowledge.jobs.parts import described, write_onnx
from diredi.knowledge.jobs.specs import File, OverlayResult, OverlaySpec
from diredi.knowledge.overlay import choose_overlay
from diredi.labels import LabelSpace
from diredi.progress import OnProgress, report
from diredi.timing import Clock

_STRIDE = 32
_MOST_LOOKED_AT = 64


def main(spec: OverlaySpec, folder: Path, on_progress: OnProgress) -> OverlayResult:
    """Make the release's form, as the specification wants; a file is left only where the site is served by it.

    Raises:
        DatasetError: The site's data set cannot be used.
        InvalidInput: It has no labelled boxes.
        CorruptData: A file is no model.
    """
    clock = Clock()
    data, _ = filling.load_site(spec)
    before = after = evaluate(OnnxPredictor(spec.onnx), data)
    student: Detector | None = registry.load(spec.student) if spec.overlay or spec.fit_input else None
    made: File | None = None
    statistics: File | None = None
    share = 0.0
    if student is not None and spec.overlay:
        with clock.step("measure"):
            report(on_progress, "overlay", 0.0, "measuring batch-norm statistics")
            overlay = choose_overlay(student, data)
        with clock.step("judge"):
            report(on_progress, "overlay", 0.3, "measuring the release with them and without")
            if overlay is not None:
                applied = overlay.apply(student)
                onnx, predictor = write_onnx(applied, folder / "overlaid.onnx")
                with_overlay = evaluate(predictor, data)
                if with_overlay.map50 > before.map50:
                    overlay.save(folder / "overlay.safetensors")
                    statistics, share = described(folder / "overlay.safetensors"), overlay.note.share
                    student, made, after = applied, onnx, with_overlay
    left_out: list[str] = []
    size = find_input_size(data.train, OnnxPredictor(spec.onnx).spec.image_size) if spec.fit_input else None
    if student is not None and size is not None:
        with clock.step("fit"):
            shape = f"an input of {size[1]} x {size[0]}"
            report(on_progress, "overlay", 0.5, f"measuring the release with {shape}")
            fitted = folder / "fitted.onnx"
            export_onnx(student, fitted, size)
            problem, metrics = _explain_loss(made.path if made else spec.onnx, fitted, data, spec, shape)
            if problem:
                left_out.append(problem)
                size = None
            else:
                made, after = described(fitted), metrics
    is_quantised = False
    if spec.quantise:
        with clock.step("quantise"):
            report(on_progress, "overlay", 0.7, "writing the release with 8 bits")
            plain, quantised = made.path if made else spec.onnx, folder / "quantised.onnx"
            problem = _quantise(plain, quantised, data, spec)
            if not problem:
                problem, metrics = _explain_loss(plain, quantised, data, spec, "8 bits")
            if problem:
                left_out.append(problem)
            else:
                made, after, is_quantised = described(quantised), metrics, True
    return OverlayResult(
        before=before, after=after, seconds=clock.seconds, share=share, overlay=statistics, onnx=made, input_size=size,
        quantised=is_quantised, left_out="; ".join(left_out),
    )  # fmt: skip


def find_input_size(samples: Sequence[Sample], image_size: int) -> tuple[int, int] | None:
    """Return the smallest input on which images lose no pixel that they have on the square.

    Args:
        samples: Images, some of which are looked at.
        image_size: The side of the square, in pixels.

    Returns:
        Height and width, multiples of 32; None where it is the square.
    """
    step = max(1, len(samples) // _MOST_LOOKED_AT)
    shapes = np.array([read_image(sample.image).shape[:2] for sample in samples[::step][:_MOST_LOOKED_AT]])
    shares = (shapes / shapes.max(axis=1, keepdims=True)).max(axis=0)
    height, width = (min(_STRIDE * math.ceil(round(image_size * share) / _STRIDE), image_size) for share in shares)
    return None if height == width else (height, width)


def _quantise(plain: Path, path: Path, data: Dataset, spec: OverlaySpec) -> str:
    """Write a file with 8 bits; return why there is none; empty where there is."""
    from diredi.detectors.quantisation import quantise

    chosen = data.train[:: max(1, len(data.train) // spec.calibration_images)][: spec.calibration_images]
    try:
        quantise(plain, [read_image(sample.image) for sample in chosen], path)
    except InvalidInput as error:
        return str(error)
    return ""


def _explain_loss(plain: Path, path: Path, data: Dataset, spec: OverlaySpec, form: str) -> tuple[str, DetectionMetrics]:
    """Return what a file has lost beside another one, empty where that is little, and its metrics."""
    from diredi.detectors.quantisation import explain_loss, explain_lost_class

    labels = LabelSpace.of(data.names)
    (before, theirs), (after, ours) = (
        evaluate_with_matches(OnnxPredictor(file), data.val, labels) for file in (plain, path)
    )
    boxes = {name: metrics.boxes for name, metrics in before.per_class.items()}
    f1_before, f1_after = (f1_by_class(one, labels, spec.confidence) for one in (theirs, ours))
    lost = explain_loss(before, after, most=spec.max_loss, most_of_a_class=spec.max_class_loss, form=form)
    return lost or explain_lost_class(f1_before, f1_after, boxes, most=spec.max_class_loss, form=form), after
