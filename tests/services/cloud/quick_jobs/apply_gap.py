from __future__ import annotations

from pathlib import Path

from diredi.detectors.spec import DetectorSpec
from diredi.knowledge.gap import apply
from diredi.knowledge.jobs.specs import ApplyResult, ApplySpec
from diredi.knowledge.lambda_search import TriedLambda
from diredi.progress import OnProgress, report
from diredi.store.weights import WeightMap
from tests.services.cloud.quick_jobs import toy


def main(spec: ApplySpec, folder: Path, on_progress: OnProgress) -> ApplyResult:
    report(on_progress, "apply", 0.0, "begin")
    base, known = WeightMap.load(spec.tutor), DetectorSpec.of_file(spec.tutor).labels
    gap = toy.merged_gap(spec.gaps, base)
    after, labels = apply(base, gap.weights, spec.recipe.lam or 1.0), gap.note.labels
    report(on_progress, "apply", 1.0, "end")
    return ApplyResult(
        **toy.kept(after, labels, folder / "tutor.safetensors"),
        lam=1.0,
        harmless=True,
        before=toy.metrics(base, known),
        after=toy.metrics(after, labels),
        tried=tuple(TriedLambda(lam=one.lam, metrics=one.metrics) for site in spec.scores for one in site),
        seconds={"apply": 0.1},
    )
