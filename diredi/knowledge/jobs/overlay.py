"""Site job: batch-norm statistics of this site for a release, judged as the very file that its edge nodes would run."""

from __future__ import annotations

from pathlib import Path

from diredi.detectors import registry
from diredi.detectors.onnx import OnnxPredictor
from diredi.evaluation.detection import evaluate
from diredi.knowledge.jobs import filling
from diredi.knowledge.jobs.parts import described, write_onnx
from diredi.knowledge.jobs.specs import OverlayResult, OverlaySpec
from diredi.knowledge.overlay import choose_overlay
from diredi.progress import OnProgress, report
from diredi.timing import Clock


def main(spec: OverlaySpec, folder: Path, on_progress: OnProgress) -> OverlayResult:
    """Measure an overlay; its file is left in the folder only if the site is better with it.

    Raises:
        DatasetError: The site's data set cannot be used.
        InvalidInput: It has no labelled boxes.
        CorruptData: A file is no model.
    """
    clock = Clock()
    with clock.step("measure"):
        report(on_progress, "overlay", 0.0, "measuring batch-norm statistics")
        student = registry.load(spec.student)
        data, _ = filling.load_site(spec)
        overlay = choose_overlay(student, data)
    with clock.step("judge"):
        report(on_progress, "overlay", 0.5, "measuring the release with them and without")
        before = after = evaluate(OnnxPredictor(spec.onnx), data)
        if overlay is not None:
            onnx, predictor = write_onnx(overlay.apply(student), folder / "overlaid.onnx")
            after = evaluate(predictor, data)
    if overlay is None or after.map50 <= before.map50:
        return OverlayResult(before=before, after=after, seconds=clock.seconds)
    overlay.save(folder / "overlay.safetensors")
    return OverlayResult(
        before=before, after=after, seconds=clock.seconds, share=overlay.note.share,
        overlay=described(folder / "overlay.safetensors"), onnx=onnx,
    )  # fmt: skip
