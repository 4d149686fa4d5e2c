"""Cloud job: the gaps of a cycle's sites, merged, meet the tutor.

spec    tutor (safetensors: whatever receives the gap), gaps (path, codec, site, images of each), labels, presumed (a
        data.yaml), recipe; scores (of each site, as `extract` gives them) where the sites have sent some
result  weights, digest, bytes, lam, harmless, before, after, tried (lambda and figures), seconds
"""

from __future__ import annotations

from pathlib import Path

from diredi.detectors import registry
from diredi.jobs import Report
from diredi.knowledge.gap_application import apply_gap
from diredi.knowledge.jobs.parts import Clock, Json, labels_of, merged_of, part_of, presumed_of, write_weights
from diredi.knowledge.lambda_search import Score
from diredi.knowledge.recipe import CycleRecipe


def main(spec: Json, folder: Path, report: Report) -> Json:
    """Raises InvalidInput and CorruptData for a gap that is none, or none for this base, or not one to be merged."""
    clock, labels, recipe = Clock(), labels_of(spec), CycleRecipe.of(spec["recipe"])
    with clock.step("read"):
        report("read", 0.0, "reading gaps and models")
        base = registry.load(Path(spec["tutor"]))
        gap, recipe = merged_of(spec["gaps"], base, recipe)
        presumed = presumed_of(spec, labels)
    with clock.step("apply"):
        scores = [[Score.model_validate(one) for one in site] for site in spec.get("scores", [])]
        applied = apply_gap(base, gap, presumed, recipe, part_of(report, "apply"), scores)
    return {
        **write_weights(applied.detector, folder / "tutor.safetensors"),
        "lam": applied.lam,
        "harmless": applied.harmless,
        "before": applied.before.model_dump(),
        "after": applied.after.model_dump(),
        "tried": [{"lam": one.lam, "figures": one.figures.model_dump()} for one in applied.tried],
        "seconds": clock.seconds,
    }
