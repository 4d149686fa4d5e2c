"""Cloud job: the gaps of a cycle's sites, merged, meet the tutor."""

from __future__ import annotations

from pathlib import Path

from diredi.data.dataset import load as load_dataset
from diredi.detectors import registry
from diredi.knowledge.gap_application import apply_gap
from diredi.knowledge.jobs.parts import merged_of, write_weights
from diredi.knowledge.jobs.specs import ApplyResult, ApplySpec
from diredi.progress import OnProgress, report
from diredi.timing import Clock


def main(spec: ApplySpec, folder: Path, on_progress: OnProgress) -> ApplyResult:
    """Merge the gaps and write the updated tutor.

    Raises:
        InvalidInput: A gap is not one for this tutor, or the gaps cannot be merged.
        CorruptData: A file is no gap.
    """
    clock = Clock()
    with clock.step("read"):
        report(on_progress, "read", 0.0, "reading gaps and models")
        tutor = registry.load(spec.tutor)
        gap, recipe = merged_of(spec.gaps, tutor, spec.recipe)
        guard = load_dataset(spec.presumed)
    with clock.step("apply"):
        applied = apply_gap(tutor, gap, guard=guard, recipe=recipe, scores=spec.scores, on_progress=on_progress)
    return ApplyResult(
        **write_weights(applied.model, folder / "tutor.safetensors").model_dump(),
        lam=applied.lam,
        harmless=applied.harmless,
        before=applied.before,
        after=applied.after,
        silenced=applied.silenced,
        tried=tuple(applied.tried),
        seconds=clock.seconds,
    )
