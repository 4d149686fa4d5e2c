"""Cloud job: a new student from the updated tutor.

spec    tutor (the updated one), student (the old one), student_gaps (path, codec, site, images of each; may be empty),
        labels, presumed (a data.yaml), recipe; pool (a data.yaml) where the recipe teaches on a public pool; styles
        (SiteStyle of each site that has published its own)
result  weights, digest, bytes, onnx (path, digest, bytes), chosen, harmless, lam, before, after (measured on the
        ONNX file), candidates (kind to figures), images (source to their number; none where no student was
        taught), seconds
"""

from __future__ import annotations

from pathlib import Path

from diredi.data.dataset import load as load_dataset
from diredi.data.style import SiteStyle
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.jobs import Report
from diredi.knowledge.gap_application import Presumed
from diredi.knowledge.image_sources import Stock, images_of
from diredi.knowledge.jobs.parts import (
    Clock,
    Json,
    forget_trainings,
    labels_of,
    merged_of,
    presumed_of,
    trainings_in,
    write_onnx,
    write_weights,
)
from diredi.knowledge.recipe import CycleRecipe, ImageSource
from diredi.knowledge.redistil import redistil


def main(spec: Json, folder: Path, report: Report) -> Json:
    """Raises InvalidInput and CorruptData for a gap that is none, or none for this student."""
    clock, labels, recipe = Clock(), labels_of(spec), CycleRecipe.of(spec["recipe"])
    with clock.step("read"):
        report("read", 0.0, "reading gaps and models")
        tutor, old = (registry.load(Path(spec[kind])) for kind in ("tutor", "student"))
        gap = None
        if spec["student_gaps"]:
            gap, recipe = merged_of(spec["student_gaps"], old, recipe)
        presumed = presumed_of(spec, labels)
    images: dict[ImageSource, Pool] = {}

    def pools() -> list[Pool]:
        with clock.step("images"):
            report("images", 0.0, "collecting images to teach on")
            images.update(images_of(_stock(spec, folder, tutor, old, presumed, recipe), recipe.redistil_images))
        return list(images.values())

    with clock.step("redistil"):
        made = redistil(old, tutor, gap, presumed, pools, recipe, report, trainings_in(folder))
    with clock.step("export"):
        report("export", 0.0, "writing the file that edge nodes run, and measuring it")
        weights = write_weights(made.detector, folder / "student.safetensors")
        onnx, predictor = write_onnx(made.detector, folder / "student.onnx")
        after = presumed.figures(predictor)
    forget_trainings(folder)
    return {
        **weights,
        "onnx": onnx,
        "chosen": made.chosen,
        "harmless": made.harmless,
        "lam": made.lam,
        "before": made.before.model_dump(),
        "after": after.model_dump(),
        "candidates": {name: figures.model_dump() for name, figures in made.candidates.items()},
        "images": {name: len(pool.samples) for name, pool in images.items()},
        "seconds": clock.seconds,
    }


def _stock(spec: Json, folder: Path, tutor: Detector, old: Detector, presumed: Presumed, recipe: CycleRecipe) -> Stock:
    return Stock(
        tutor,
        old,
        presumed.train,
        load_dataset(Path(spec["pool"]), ["train"]).train if spec.get("pool") else [],
        [SiteStyle.model_validate(style) for style in spec.get("styles", [])],
        recipe.presumed_shows_new,
        folder / "images",
        recipe.seed,
    )
