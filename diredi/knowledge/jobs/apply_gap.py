"""Cloud job: the gap meets the tutor.

spec    tutor (safetensors: whatever receives the gap), gap, codec, labels, presumed (a data.yaml), recipe
result  weights, digest, bytes, lam, harmless, before, after, tried (lambda and figures), seconds
"""

from __future__ import annotations

from pathlib import Path

from diredi.detectors import registry
from diredi.jobs import Report
from diredi.knowledge.apply import apply_gap
from diredi.knowledge.gap import Gap
from diredi.knowledge.jobs.parts import Clock, Json, labels_of, part_of, presumed_of, write_weights
from diredi.knowledge.recipe import CycleRecipe


def main(spec: Json, folder: Path, report: Report) -> Json:
    """Raises InvalidInput and CorruptData for a gap that is none, or none for this base."""
    clock, labels, recipe = Clock(), labels_of(spec), CycleRecipe.of(spec["recipe"])
    with clock.step("read"):
        report("read", 0.0, "reading gap and models")
        gap = Gap.from_bytes(Path(spec["gap"]).read_bytes(), spec["codec"])
        base = registry.load(Path(spec["tutor"]))
        presumed = presumed_of(spec, labels)
    with clock.step("apply"):
        applied = apply_gap(base, gap, presumed, recipe, part_of(report, "apply"))
    return {
        **write_weights(applied.detector, folder / "tutor.safetensors"),
        "lam": applied.lam,
        "harmless": applied.harmless,
        "before": applied.before.model_dump(),
        "after": applied.after.model_dump(),
        "tried": [{"lam": one.lam, "figures": one.figures.model_dump()} for one in applied.tried],
        "seconds": clock.seconds,
    }
