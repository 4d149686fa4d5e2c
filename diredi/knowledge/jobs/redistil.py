"""Cloud job: a new student from the updated tutor.

spec    tutor (the updated one), student (the old one), student_gaps (path, codec, site, images of each; may be empty),
        labels, presumed (a data.yaml), recipe; pool (a data.yaml) where the recipe teaches on a public pool
result  weights, digest, bytes, onnx (path, digest, bytes), chosen, harmless, lam, before, after (measured on the
        ONNX file), candidates (kind to figures), seconds
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from diredi.data.dataset import load as load_dataset
from diredi.detectors import registry
from diredi.distillation.batches import Pool
from diredi.errors import InvalidInput
from diredi.jobs import Report
from diredi.knowledge.apply import Presumed
from diredi.knowledge.jobs.parts import Clock, Json, contributions_of, labels_of, presumed_of, write_onnx, write_weights
from diredi.knowledge.merging import merged
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.redistil import redistil
from diredi.labels import LabelSpace


def main(spec: Json, folder: Path, report: Report) -> Json:
    """Raises InvalidInput and CorruptData for a gap that is none, or none for this student."""
    clock, labels, recipe = Clock(), labels_of(spec), CycleRecipe.of(spec["recipe"])
    with clock.step("read"):
        report("read", 0.0, "reading gaps and models")
        tutor, old = (registry.load(Path(spec[kind])) for kind in ("tutor", "student"))
        gaps = contributions_of(spec["student_gaps"])
        gap = merged(gaps, old.weights(), recipe.merge) if gaps else None
        presumed = presumed_of(spec, labels)
        pools = [_pool(spec, presumed, old.spec.labels, recipe)]
    with clock.step("redistil"):
        made = redistil(old, tutor, gap, presumed, pools, recipe, report)
    with clock.step("export"):
        report("export", 0.0, "writing the file that edge nodes run, and measuring it")
        weights = write_weights(made.detector, folder / "student.safetensors")
        onnx, predictor = write_onnx(made.detector, folder / "student.onnx")
        after = presumed.figures(predictor)
    return {
        **weights,
        "onnx": onnx,
        "chosen": made.chosen,
        "harmless": made.harmless,
        "lam": made.lam,
        "before": made.before.model_dump(),
        "after": after.model_dump(),
        "candidates": {name: figures.model_dump() for name, figures in made.candidates.items()},
        "seconds": clock.seconds,
    }


def _pool(spec: Json, presumed: Presumed, known: LabelSpace, recipe: CycleRecipe) -> Pool:
    if recipe.redistil_images == "presumed":
        return Pool(presumed.train, frozenset(range(len(known))) if recipe.presumed_shows_new else None)
    if not spec.get("pool"):
        raise InvalidInput("the recipe teaches on a public pool, but this cloud has none: use redistil_images=presumed")
    images = load_dataset(Path(spec["pool"]), ["train"]).train
    nothing = np.zeros((0, 5), np.float32)
    return Pool([replace(sample, boxes=nothing) for sample in images], frozenset())
