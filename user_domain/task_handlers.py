"""The handlers of tasks. Each may start again from the top: whatever was finished before is not done again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import BaseModel

from diredi.errors import DirediError, InvalidInput
from diredi.evaluation.metrics import DetectionMetrics
from diredi.jobs import Executor, Result, job_folder
from diredi.knowledge.jobs.specs import (
    ExtractResult,
    ExtractSpec,
    OracleSpec,
    ValidateResult,
    ValidateSpec,
)
from diredi.knowledge.recipe import CycleRecipe
from diredi.labels import LabelSpace
from diredi.progress import Progress
from diredi.store.files import no_room_at
from user_domain.cloud import CloudClient
from user_domain.consent import Answer, Consent
from user_domain.failure_reasons import Stage
from user_domain.journal import Journal
from user_domain.manifest import ManifestStore, build_manifest
from user_domain.policy import Policy
from user_domain.private_data import PrivateData
from user_domain.progress import LatestProgress, ProgressReporter
from user_domain.tasks import Task, TaskKind

EXTRACT_JOB = "diredi.knowledge.jobs.extract"
VALIDATE_JOB = "diredi.knowledge.jobs.validate"


class Declined(Exception):
    """The site does not agree. Its message is for the cloud."""


class StageError(Exception):
    """Wrap an error with the stage in which it was met."""

    def __init__(self, stage: Stage, error: Exception) -> None:
        """Make the wrapper.

        Args:
            stage: Where the error was met.
            error: What was met; its message is for the local log only.
        """
        super().__init__(f"{stage}: {error}")
        self.stage = stage
        self.error = error


@contextmanager
def _stage(stage: Stage) -> Iterator[None]:
    try:
        yield
    except DirediError as error:
        raise StageError(stage, error) from error


@dataclass(frozen=True)
class SiteContext:
    """Hold what tasks at this site are performed with."""

    cloud: CloudClient
    executor: Executor
    journal: Journal
    jobs: Path
    """Folder of the work files."""
    consent: Consent
    policy: Policy
    read_data: Callable[[bool], PrivateData]
    """Told whether to read the labels, too."""
    progress_every_s: float
    publish_style: bool
    min_held_out: int
    """With fewer held-out images, no figure of a model leaves."""
    audit_images: int = 0
    """On how many training images the deployed models look for wrong labels; 0: on none."""
    latest: LatestProgress = field(default_factory=LatestProgress)
    """What is done now, for the site's own people."""
    manifests: ManifestStore | None = None
    """Keeps what was said of each gap that left; None keeps nothing."""
    oracle: Path | None = None
    """A detector of the site's own that says what labels do not say; None: the cloud's tutor."""

    def folder(self, task: Task) -> Path:
        """Return the folder of a task's work files."""
        return self.cycle_folder(task) / task.kind.value

    def cycle_folder(self, task: Task) -> Path:
        """Return the folder of the work files of all tasks of a cycle."""
        return job_folder(self.jobs, task.cycle_id)


async def perform(site: SiteContext, task: Task) -> None:
    """Perform a task and submit its result.

    Raises:
        StageError: A stage met an error, or the handler has a defect.
        WrongState: The cloud no longer wants the task.
        DirediError: The cloud could not be told that the task begins.
    """

    async def send(progress: Progress) -> None:
        if task.kind is TaskKind.EXTRACT:  # the cloud takes progress of nothing else
            await site.cloud.report_progress(task.cycle_id, progress)

    await send(Progress("begin", 0.0, ""))
    site.latest.begin(task.cycle_id, task.kind.value)
    reporter = ProgressReporter(send, site.progress_every_s, site.latest)
    handler = {
        TaskKind.EXTRACT: _extract,
        TaskKind.VALIDATE: _validate,
        TaskKind.VALIDATE_EXTERNAL: _validate_external,
    }[task.kind]
    reporting = asyncio.create_task(reporter.run())
    working = asyncio.create_task(handler(site, task, reporter))
    try:
        await asyncio.wait({reporting, working}, return_when=asyncio.FIRST_COMPLETED)
        await (working if working.done() else reporting)
    except (DirediError, StageError):
        raise
    except Exception as error:  # a defect that one task brings to light must not end the site's service
        raise StageError(Stage.JOB, error) from error
    finally:
        site.latest.end()
        reporting.cancel()
        working.cancel()
        await asyncio.gather(reporting, working, return_exceptions=True)


async def _extract(site: SiteContext, task: Task, reporter: ProgressReporter) -> None:
    assert task.tutor and task.tutor.weights and task.student and task.student.weights
    recipe, data = await _read(site, task)
    _check_still_approved(site, task)
    known = task.tutor.spec.labels
    labels = known if recipe.labels == "oracle" else await _labels(site, task, data)  # an oracle finds nothing new
    with _stage(Stage.DOWNLOAD):
        on_bytes = _byte_progress(reporter, "download")
        tutor = await site.cloud.fetch(task.tutor.weights, ".safetensors", on_bytes)
        student = await site.cloud.fetch(task.student.weights, ".safetensors", on_bytes)
        coreset = await site.cloud.fetch(task.coreset, ".zip", on_bytes) if task.coreset else None
        site.cloud.delete_downloads_except({path for path in (tutor, student, coreset) if path})
    oracle = _oracle(site, task, recipe, tutor)
    spec = ExtractSpec(
        **data.spec,
        tutor=tutor,
        student=student,
        coreset=coreset,
        labels=labels,
        recipe=site.policy.limit(recipe),
        oracle=oracle if recipe.labels == "oracle" else None,
        filling=oracle if recipe.labels == "site" and recipe.fill_in and site.oracle else None,
        publish_style=site.publish_style,
        least_images=site.min_held_out,
        audit_images=site.audit_images,
    )
    result = await _run_job(site, task, EXTRACT_JOB, spec, ExtractResult, reporter)
    if result.audit is not None:
        structlog.get_logger().info("labels_audited", **result.audit.model_dump(mode="json"))
    gaps = [gap for gap in (result.tutor_gap, result.student_gap) if gap is not None]
    if reason := site.policy.refuse_upload(sum(gap.bytes for gap in gaps)):
        raise StageError(Stage.CONSENT, Declined(reason))
    with _stage(Stage.UPLOAD):
        for gap in gaps:
            await site.cloud.upload(gap.path, _byte_progress(reporter, "upload"))
    reporter.close()
    with _stage(Stage.CONSENT):
        site.consent.record_upload(task, [gap.digest for gap in gaps])
    with _stage(Stage.SUBMIT):
        manifest = build_manifest(task, labels, result, publish_style=site.publish_style)
        if site.manifests is not None:
            site.manifests.keep(manifest)
        await site.cloud.submit_gap(manifest)


def _check_still_approved(site: SiteContext, task: Task) -> None:
    """Refuse where the data set, read anew, has class names that the approval is not about."""
    verdict = site.consent.judge(task)
    if verdict.answer is not Answer.YES:
        reason = verdict.reason or "the site's class names are not those that were approved: start again"
        raise StageError(Stage.CONSENT, Declined(reason))


async def _read(site: SiteContext, task: Task) -> tuple[CycleRecipe, PrivateData]:
    """Return the recipe and the data set, of which labels are read where the recipe goes by them."""
    with _stage(Stage.JOB):
        recipe = CycleRecipe.of(task.recipe)
    with _stage(Stage.DATA):
        return recipe, await asyncio.to_thread(site.read_data, recipe.labels == "site")


def _oracle(site: SiteContext, task: Task, recipe: CycleRecipe, tutor: Path) -> OracleSpec:
    """Return who says in this cycle what the site's labels do not say."""
    assert task.tutor
    return OracleSpec(
        detector=site.oracle or tutor,
        labels=task.tutor.spec.labels,
        looks=recipe.oracle_looks,
        confidence=recipe.oracle_confidence,
        kept=site.cycle_folder(task) / "oracle.json",
    )


async def _labels(site: SiteContext, task: Task, data: PrivateData) -> LabelSpace:
    """Return the label space, which is asked for once a cycle: a job that is resumed must be the same job."""
    known = site.journal.labels(task.cycle_id)
    if known is not None and set(data.names) <= set(known.names):
        return known
    assert task.tutor
    with _stage(Stage.CLASSES):
        task.tutor.spec.labels.check_decided(data.names, data.distinct)  # before the cloud hears of such a name
        labels = await site.cloud.propose_classes(task.cycle_id, data.names, data.distinct)
        labels.ids_of(data.names)
        site.journal.set_labels(task.cycle_id, labels)
    return labels


async def _validate(site: SiteContext, task: Task, reporter: ProgressReporter) -> None:
    assert task.student and task.student.onnx
    submitted = site.consent.submitted_figures(task)
    figures = await _measure(site, task, reporter) if submitted is None else DetectionMetrics.model_validate(submitted)
    if submitted is None:
        with _stage(Stage.CONSENT):
            site.consent.record_validation(task, figures.model_dump(mode="json"))
    with _stage(Stage.SUBMIT):
        await site.cloud.submit_validation(task.cycle_id, figures)


async def _measure(site: SiteContext, task: Task, reporter: ProgressReporter) -> DetectionMetrics:
    assert task.student and task.student.onnx
    recipe, data = await _read(site, task)
    oracle = None
    with _stage(Stage.DOWNLOAD):
        onnx = await site.cloud.fetch(task.student.onnx, ".onnx")
        if recipe.labels == "oracle":
            if task.tutor is None or task.tutor.weights is None:
                raise InvalidInput("the task names no tutor, which says what is on the images: update the cloud")
            oracle = _oracle(site, task, recipe, await site.cloud.fetch(task.tutor.weights, ".safetensors"))
    spec = ValidateSpec(
        **data.spec,
        onnx=onnx,
        labels=task.student.spec.labels,
        image_size=task.student.spec.image_size,
        oracle=oracle,
        least_images=site.min_held_out,
    )
    return (await _run_job(site, task, VALIDATE_JOB, spec, ValidateResult, reporter)).metrics


async def _validate_external(site: SiteContext, task: Task, reporter: ProgressReporter) -> None:
    """Measure a candidate, and what it would replace, by this site's own labels. No recipe of the cloud says how."""
    after, before = site.consent.submitted_figures(task), site.consent.submitted_before(task)
    if after is None or before is None:
        with _stage(Stage.DATA):
            data = await asyncio.to_thread(site.read_data, True)
        assert task.deployed
        measured = []
        for name, model in (("deployed", task.deployed), ("candidate", task.student)):
            assert model and model.onnx
            with _stage(Stage.DOWNLOAD):
                onnx = await site.cloud.fetch(model.onnx, ".onnx")
            spec = ValidateSpec(
                **data.spec,
                onnx=onnx,
                labels=model.spec.labels,
                image_size=model.spec.image_size,
                least_images=site.min_held_out,
                classes=task.deployed.spec.labels.names,
            )
            result = await _run_job(site, task, VALIDATE_JOB, spec, ValidateResult, reporter, name)
            measured.append(result.metrics.model_dump(mode="json"))
        before, after = measured
        with _stage(Stage.CONSENT):
            site.consent.record_validation(task, after, before)
    figures = DetectionMetrics.model_validate(after), DetectionMetrics.model_validate(before)
    with _stage(Stage.SUBMIT):
        await site.cloud.submit_validation(task.cycle_id, *figures)


async def _run_job(
    site: SiteContext,
    task: Task,
    module: str,
    spec: BaseModel,
    result: type[Result],
    reporter: ProgressReporter,
    name: str = "",
) -> Result:
    async def on_progress(progress: Progress) -> None:
        reporter.update(progress.step, progress.fraction, progress.message)

    with _stage(Stage.JOB), no_room_at(site.jobs):
        return await site.executor.run(module, spec, result, site.folder(task) / name, on_progress)


def _byte_progress(reporter: ProgressReporter, step: str) -> Callable[[int, int], None]:
    def on_bytes(done: int, total: int) -> None:
        reporter.update(step, done / total if total else 1.0, f"{done}/{total} bytes")

    return on_bytes
