from __future__ import annotations

from pathlib import Path

from diredi.detectors.spec import DetectorSpec
from diredi.knowledge.gap import apply
from diredi.knowledge.jobs.specs import RedistilResult, RedistilSpec
from diredi.progress import OnProgress, report
from diredi.store.weights import WeightMap
from tests.services.cloud.quick_jobs import toy


def main(spec: RedistilSpec, folder: Path, on_progress: OnProgress) -> RedistilResult:
    report(on_progress, "redistil", 0.0, "begin")
    old, known = WeightMap.load(spec.student), DetectorSpec.of_file(spec.student).labels
    labels = DetectorSpec.of_file(spec.tutor).labels
    if spec.student_gaps:
        new = apply(old, toy.merged_gap(spec.student_gaps, old).weights)
    else:
        new = toy.weights(labels, toy.quality(WeightMap.load(spec.tutor)), size=8)
    return RedistilResult(
        **toy.kept(new, labels, folder / "student.safetensors"),
        onnx=toy.kept_onnx(new, folder / "student.onnx"),
        chosen="gap" if spec.student_gaps else "redistilled",
        harmless=True,
        lam=1.0 if spec.student_gaps else None,
        before=toy.metrics(old, known),
        after=toy.metrics(new, labels),
        candidates={},
        images={"styled": len(spec.styles)},
        seconds={"redistil": 0.1},
    )
