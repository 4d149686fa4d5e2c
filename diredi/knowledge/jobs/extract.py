"""Site job: reverse distillation, the tutor's gap and the student's.

spec    data (a data.yaml), tutor, student (safetensors), coreset (zip or null), labels, recipe,
        publish_style (whether the site's operator agrees to publish how its images look; default: no)
result  tutor_gap, student_gap or null (path, digest, bytes, codec, fp32_bytes, schema_digest), train_images,
        held_out_images, boxes, student_before, tutor_after, scores (lambda and figures; none where the recipe does
        not search by them), student_after or null, style (SiteStyle or null), seconds
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from diredi.data.archive import unpack
from diredi.data.dataset import DataSet, subset
from diredi.data.dataset import load as load_dataset
from diredi.data.style import measure_style
from diredi.detectors import registry
from diredi.detectors.spec import DetectorSpec
from diredi.evaluation.detection import evaluate
from diredi.jobs import Report
from diredi.knowledge.gap import Gap, GapNote
from diredi.knowledge.gap_application import scored
from diredi.knowledge.jobs.parts import Clock, Json, forget_trainings, labels_of, part_of, trainings_in, write_gap
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import SiteData, distil_student, reverse_distil
from diredi.store.blobs import digest_of_file
from diredi.store.weights import WeightMap


def main(spec: Json, folder: Path, report: Report) -> Json:
    """Raises InvalidInput and DataSetError for what the spec names and cannot be used."""
    clock, labels, recipe = Clock(), labels_of(spec), CycleRecipe.of(spec["recipe"])
    with clock.step("read"):
        report("read", 0.0, "reading data and models")
        private = load_dataset(Path(spec["data"]))
        held_out = private.with_labels(labels).val
        data = SiteData.of(private, _coreset(spec, folder, recipe), labels, recipe.presumed_shows_new)
        tutor, student = (registry.load(Path(spec[kind])) for kind in ("tutor", "student"))
    with clock.step("measure-before"):
        student_before = evaluate(student, held_out, labels)
    with clock.step("reverse-distillation"):
        tutor_2, gap = reverse_distil(tutor, student, data, recipe, report, trainings_in(folder))
    with clock.step("measure-tutor-2"):
        tutor_after = evaluate(tutor_2, held_out, labels)
    tutor_gap = _written(gap, "tutor", spec, data, recipe, folder)
    with clock.step("scores"):
        sent = Gap.from_bytes(Path(tutor_gap["path"]).read_bytes())  # what the cloud will have, codec and all
        figures = partial(evaluate, samples=held_out, labels=labels)
        scores = scored(tutor, sent, figures, data.coreset.samples, recipe, part_of(report, "scores"))
    result = {
        "tutor_gap": tutor_gap,
        "student_gap": None,
        "scores": [score.model_dump() for score in scores],
        "train_images": len(private.train),
        "held_out_images": len(private.val),
        "boxes": private.counts("train"),
        "student_before": student_before.model_dump(),
        "tutor_after": tutor_after.model_dump(),
        "student_after": None,
        "style": measure_style(private.train).model_dump() if spec.get("publish_style") else None,
    }
    if recipe.student_gap:
        with clock.step("student-gap"):
            taught, gap = distil_student(student, tutor_2, data, recipe, report, trainings_in(folder))
        with clock.step("measure-student"):
            result["student_after"] = evaluate(taught, held_out, labels).model_dump()
        result["student_gap"] = _written(gap, "student", spec, data, recipe, folder)
    forget_trainings(folder)
    return {**result, "seconds": clock.seconds}


def _coreset(spec: Json, folder: Path, recipe: CycleRecipe) -> DataSet | None:
    if not spec.get("coreset") or recipe.coreset_images == 0:
        return None
    place = folder / "coreset"
    shutil.rmtree(place, ignore_errors=True)
    return subset(unpack(Path(spec["coreset"]), place), recipe.coreset_images, recipe.seed)


def _written(gap: WeightMap, kind: str, spec: Json, data: SiteData, recipe: CycleRecipe, folder: Path) -> Json:
    base = Path(spec[kind])
    known = DetectorSpec.of_file(base).labels
    note = GapNote(
        base_id=digest_of_file(base).digest,
        labels=data.labels,
        base_classes=len(known),
        taught=tuple(name for name in data.labels.new_since(known) if name in data.seen),
    )
    fp32_bytes = WeightMap.load(base).fp32_bytes
    return write_gap(Gap(gap, note), recipe.codec, folder / f"{kind}.gap", fp32_bytes)
