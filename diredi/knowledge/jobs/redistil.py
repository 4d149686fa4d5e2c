"""Cloud job: a new student from the updated tutor."""

from __future__ import annotations

from pathlib import Path

from diredi.data.dataset import Dataset
from diredi.data.dataset import load as load_dataset
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.evaluation.detection import evaluate
from diredi.knowledge.image_sources import Stock, images_of
from diredi.knowledge.jobs.parts import (
    forget_trainings,
    golden_images,
    merged_of,
    trainings_in,
    write_onnx,
    write_weights,
)
from diredi.knowledge.jobs.specs import RedistilResult, RedistilSpec
from diredi.knowledge.recipe import ImageSource
from diredi.knowledge.redistil import redistil
from diredi.progress import OnProgress, report
from diredi.timing import Clock


def main(spec: RedistilSpec, folder: Path, on_progress: OnProgress) -> RedistilResult:
    """Choose the next student and write it, as weights and as the file that edge nodes run.

    Raises:
        InvalidInput: A gap is not one for this student, or the gaps cannot be merged.
        CorruptData: A file is no gap.
    """
    clock, recipe = Clock(), spec.recipe
    with clock.step("read"):
        report(on_progress, "read", 0.0, "reading gaps and models")
        tutor, old = (registry.load(path) for path in (spec.tutor, spec.student))
        gap = None
        if spec.student_gaps:
            gap, recipe = merged_of(spec.student_gaps, old, recipe)
        presumed = load_dataset(spec.presumed)
        presumed = presumed.with_labels(tutor.spec.labels.expand(presumed.names))
    images: dict[ImageSource, Pool] = {}

    def pools() -> list[Pool]:
        with clock.step("images"):
            report(on_progress, "images", 0.0, "collecting images to teach on")
            images.update(images_of(_stock(spec, folder, tutor, old, presumed), recipe.redistil_images))
        return list(images.values())

    with clock.step("redistil"):
        made = redistil(
            old,
            tutor,
            gap,
            guard=presumed,
            pools=pools,
            recipe=recipe,
            checkpoints=trainings_in(folder),
            on_progress=on_progress,
        )
    with clock.step("export"):
        report(on_progress, "export", 0.0, "writing the file that edge nodes run, and measuring it")
        golden = golden_images(presumed, recipe.coreset_images, recipe.seed)
        weights = write_weights(made.model, folder / "student.safetensors")
        onnx, predictor = write_onnx(made.model, folder / "student.onnx", golden)
        after = evaluate(predictor, presumed)
    forget_trainings(folder)
    return RedistilResult(
        **weights.model_dump(),
        onnx=onnx,
        chosen=made.chosen,
        harmless=made.harmless,
        lam=made.lam,
        before=made.before,
        after=after,
        candidates=made.candidates,
        false_alarms=made.false_alarms,
        quieted=made.quieted,
        images={name: len(pool.samples) for name, pool in images.items()},
        seconds=clock.seconds,
    )


def _stock(spec: RedistilSpec, folder: Path, tutor: Detector, old: Detector, presumed: Dataset) -> Stock:
    return Stock(
        tutor,
        old,
        presumed.train,
        load_dataset(spec.pool, ("train",), labelled=False, decode=True).train if spec.pool else [],
        spec.styles,
        spec.recipe.presumed_shows_new,
        folder / "images",
        spec.recipe.seed,
    )
