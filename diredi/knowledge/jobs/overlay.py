"""Site job: a release in a form of this site's own, judged as the very file that its edge nodes would run.

It has batch-norm statistics of the site's images, or 8 bits with ranges of these, or both, each where it does no harm.
"""

from __future__ import annotations

from pathlib import Path

from diredi.data.dataset import Dataset
from diredi.data.images import read_image
from diredi.detectors import registry
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


def main(spec: OverlaySpec, folder: Path, on_progress: OnProgress) -> OverlayResult:
    """Measure an overlay and quantise, as the specification wants; a file is left only where the site is served by it.

    Raises:
        DatasetError: The site's data set cannot be used.
        InvalidInput: It has no labelled boxes.
        CorruptData: A file is no model.
    """
    clock = Clock()
    data, _ = filling.load_site(spec)
    before = after = evaluate(OnnxPredictor(spec.onnx), data)
    made: File | None = None
    statistics: File | None = None
    share = 0.0
    if spec.overlay:
        with clock.step("measure"):
            report(on_progress, "overlay", 0.0, "measuring batch-norm statistics")
            student = registry.load(spec.student)
            overlay = choose_overlay(student, data)
        with clock.step("judge"):
            report(on_progress, "overlay", 0.3, "measuring the release with them and without")
            if overlay is not None:
                onnx, predictor = write_onnx(overlay.apply(student), folder / "overlaid.onnx")
                with_overlay = evaluate(predictor, data)
                if with_overlay.map50 > before.map50:
                    overlay.save(folder / "overlay.safetensors")
                    statistics, share = described(folder / "overlay.safetensors"), overlay.note.share
                    made, after = onnx, with_overlay
    problem = ""
    if spec.quantise:
        with clock.step("quantise"):
            report(on_progress, "overlay", 0.6, "writing the release with 8 bits")
            plain, quantised = made.path if made else spec.onnx, folder / "quantised.onnx"
            problem, metrics = _quantise(plain, quantised, data, spec)
            if not problem:
                made, after = described(quantised), metrics
    return OverlayResult(
        before=before, after=after, seconds=clock.seconds, share=share, overlay=statistics, onnx=made,
        quantised=spec.quantise and not problem, quantised_problem=problem,
    )  # fmt: skip


def _quantise(plain: Path, path: Path, data: Dataset, spec: OverlaySpec) -> tuple[str, DetectionMetrics]:
    """Write a file with 8 bits; return why it may not be used, empty where it may, and its metrics."""
    from diredi.detectors.quantisation import explain_loss, explain_lost_class, quantise

    labels = LabelSpace.of(data.names)
    before, matches_before = evaluate_with_matches(OnnxPredictor(plain), data.val, labels)
    chosen = data.train[:: max(1, len(data.train) // spec.calibration_images)][: spec.calibration_images]
    try:
        quantise(plain, [read_image(sample.image) for sample in chosen], path)
    except InvalidInput as error:
        return str(error), before
    after, matches = evaluate_with_matches(OnnxPredictor(path), data.val, labels)
    boxes = {name: metrics.boxes for name, metrics in before.per_class.items()}
    problem = explain_loss(before, after, most=spec.max_loss, most_of_a_class=spec.max_class_loss)
    if not problem:
        f1_before, f1_after = (f1_by_class(one, labels, spec.confidence) for one in (matches_before, matches))
        problem = explain_lost_class(f1_before, f1_after, boxes, most=spec.max_class_loss)
    return problem, after
