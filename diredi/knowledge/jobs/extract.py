"""Site job: reverse distillation, the tutor's gap and the student's."""

from __future__ import annotations

import shutil
from pathlib import Path

from diredi.data.archive import unpack
from diredi.data.dataset import Dataset
from diredi.data.dataset import load as load_dataset
from diredi.data.style import measure_style
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.evaluation.disclosure import for_disclosure
from diredi.knowledge.extraction import check_models, extract_gap
from diredi.knowledge.gap import Gap
from diredi.knowledge.gaps import Decision
from diredi.knowledge.jobs import audit, filling, oracle
from diredi.knowledge.jobs.parts import described, forget_trainings, trainings_in
from diredi.knowledge.jobs.specs import ExtractResult, ExtractSpec, GapFile, OracleSpec
from diredi.progress import OnProgress, report
from diredi.timing import Clock


def main(spec: ExtractSpec, folder: Path, on_progress: OnProgress) -> ExtractResult:
    """Extract the gaps and write them.

    Raises:
        InvalidInput: Something that the specification names cannot be used.
        DatasetError: The site's data set cannot be used, or the oracle finds nothing in it.
        NotFound: There is no such detector.
        CorruptData: The coreset is none, or a detector is none.
    """
    clock = Clock()
    with clock.step("read"):
        report(on_progress, "read", 0.0, "reading data and models")
        if spec.oracle is None:
            site, unlabelled = filling.load_site(spec, decode=True)
        else:
            site, unlabelled = load_dataset(spec.data, read_labels=False, decode=True), []
        coreset = _coreset(spec, folder)
        tutor, student = (registry.load(path) for path in (spec.tutor, spec.student))
    decisions: tuple[Decision, ...] = ()
    filled_in = None
    if spec.oracle is not None:
        check_models(tutor, student, coreset, spec.recipe, spec.labels)
        with clock.step(oracle.STEP):
            site = oracle.label(site, spec.oracle, on_progress=on_progress)
        decisions = (oracle.decision_of(site, _who(spec.oracle, spec)),)
        if coreset is not None:
            with clock.step("check-estimate"):
                checked = oracle.check_estimate(student, coreset, spec.oracle, spec.recipe.seed)
            decisions += (checked,) if checked else ()
    elif spec.filling is not None:
        check_models(tutor, student, coreset, spec.recipe, spec.labels)
        with clock.step(oracle.STEP):
            who = _who(spec.filling, spec)
            filled_in, decisions = filling.fill_in(site, unlabelled, spec.filling, who=who, on_progress=on_progress)
    elif unlabelled:
        decisions = (filling.left_out(unlabelled),)
    doubts = None
    if spec.oracle is None and spec.audit_images:
        with clock.step("audit"):
            doubts = audit.audit(site, [student, tutor], spec.audit_images, folder, spec.recipe.seed, on_progress)
    gaps = extract_gap(
        tutor,
        student,
        site,
        coreset=coreset,
        recipe=spec.recipe,
        labels=spec.labels,
        filled_in=filled_in,
        checkpoints=trainings_in(folder),
        on_progress=on_progress,
        measure=for_disclosure(spec.least_images),
    )
    result = ExtractResult(
        **dict(gaps.metrics)
        | {"decisions": decisions + gaps.metrics.decisions, "seconds": clock.seconds | gaps.metrics.seconds},
        tutor_gap=_written(gaps.tutor, folder / "tutor.gap", tutor),
        student_gap=None if gaps.student is None else _written(gaps.student, folder / "student.gap", student),
        style=measure_style([*site.train, *unlabelled]) if spec.publish_style else None,
        audit=doubts,
    )
    forget_trainings(folder)
    return result


def _who(asked: OracleSpec, spec: ExtractSpec) -> str:
    return "the cloud's tutor" if asked.detector == spec.tutor else "a detector of the site"


def _coreset(spec: ExtractSpec, folder: Path) -> Dataset | None:
    if spec.coreset is None or spec.recipe.coreset_images == 0:
        return None
    place = folder / "coreset"
    shutil.rmtree(place, ignore_errors=True)
    return unpack(spec.coreset, place).sample(spec.recipe.coreset_images, spec.recipe.seed)


def _written(gap: Gap, path: Path, base: Detector) -> GapFile:
    gap.save(path)
    return GapFile(
        **described(path).model_dump(),
        codec=gap.codec,
        fp32_bytes=base.weights().fp32_bytes,
        schema_digest=gap.weights.schema_digest(),
    )
