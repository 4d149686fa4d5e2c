"""What a task makes the site do. Each may begin again from the top: whatever was finished before is found finished."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from diredi.errors import DirediError, Unreachable
from diredi.jobs import Executor, Result, job_folder
from diredi.knowledge.jobs.specs import ExtractResult, ExtractSpec, ValidateResult, ValidateSpec
from diredi.knowledge.recipe import CycleRecipe
from diredi.labels import LabelSpace
from diredi.progress import Progress
from diredi.store.files import no_room_at
from user_domain.cloud import CloudClient
from user_domain.failure_reasons import Stage
from user_domain.journal import Journal
from user_domain.manifest import build_manifest
from user_domain.private_data import PrivateData
from user_domain.progress import ProgressReporter
from user_domain.tasks import Task, TaskKind

EXTRACT_JOB = "diredi.knowledge.jobs.extract"
VALIDATE_JOB = "diredi.knowledge.jobs.validate"


class TaskFailed(Exception):
    """An error that trying again does not cure, and where it happened; the error itself is for the local log only."""

    def __init__(self, stage: Stage, error: DirediError) -> None:
        super().__init__(f"{stage}: {error}")
        self.stage = stage
        self.error = error


@contextmanager
def _at(stage: Stage) -> Iterator[None]:
    """Unreachable passes: the worker waits for the cloud and begins the task again."""
    try:
        yield
    except Unreachable:
        raise
    except DirediError as error:
        raise TaskFailed(stage, error) from error


@dataclass(frozen=True)
class SiteContext:
    """What work at this site needs."""

    cloud: CloudClient
    executor: Executor
    journal: Journal
    jobs: Path
    read_data: Callable[[], PrivateData]
    progress_every_s: float
    publish_style: bool

    def folder(self, task: Task) -> Path:
        """Where the work files of a task lie."""
        return job_folder(self.jobs, task.cycle_id) / task.kind.value


async def perform(site: SiteContext, task: Task) -> None:
    """Raises WrongState when the cloud no longer wants the task, TaskFailed, or Unreachable while it is away."""
    work = {TaskKind.EXTRACT: _extract, TaskKind.VALIDATE: _validate}[task.kind]
    if task.kind is TaskKind.EXTRACT:
        await site.cloud.report_progress(task.cycle_id, Progress("begin", 0.0, ""))
    reporter = ProgressReporter(_sender(site, task), site.progress_every_s)
    telling = asyncio.create_task(reporter.run())
    working = asyncio.create_task(work(site, task, reporter))
    try:
        await asyncio.wait({telling, working}, return_when=asyncio.FIRST_COMPLETED)
        await (working if working.done() else telling)
    finally:
        telling.cancel()
        working.cancel()
        await asyncio.gather(telling, working, return_exceptions=True)


def _sender(site: SiteContext, task: Task) -> Callable[[Progress], Awaitable[None]]:
    """The cloud takes progress of an extraction only."""

    async def send(progress: Progress) -> None:
        if task.kind is TaskKind.EXTRACT:
            await site.cloud.report_progress(task.cycle_id, progress)

    return send


async def _extract(site: SiteContext, task: Task, reporter: ProgressReporter) -> None:
    assert task.tutor and task.tutor.weights and task.student and task.student.weights
    with _at(Stage.DATA):
        data = await asyncio.to_thread(site.read_data)
    with _at(Stage.DOWNLOAD):
        note = _byte_progress(reporter, "download")
        tutor = await site.cloud.fetch(task.tutor.weights, ".safetensors", note)
        student = await site.cloud.fetch(task.student.weights, ".safetensors", note)
        coreset = await site.cloud.fetch(task.coreset, ".zip", note) if task.coreset else None
        site.cloud.delete_downloads_except({path for path in (tutor, student, coreset) if path})
    labels = await _labels(site, task, data)
    with _at(Stage.JOB):
        recipe = CycleRecipe.of(task.recipe)
    spec = ExtractSpec(
        data=data.path,
        tutor=tutor,
        student=student,
        coreset=coreset,
        labels=labels,
        recipe=recipe,
        publish_style=site.publish_style,
    )
    result = await _run(site, task, EXTRACT_JOB, spec, ExtractResult, reporter)
    with _at(Stage.UPLOAD):
        for gap in filter(None, (result.tutor_gap, result.student_gap)):
            await site.cloud.upload(gap.path, _byte_progress(reporter, "upload"))
    reporter.close()
    with _at(Stage.SUBMIT):
        await site.cloud.submit_gap(build_manifest(task, labels, result, publish_style=site.publish_style))


async def _labels(site: SiteContext, task: Task, data: PrivateData) -> LabelSpace:
    """Asked for once a cycle: another site may have added classes since, and the job must stay the same job."""
    known = site.journal.labels(task.cycle_id)
    if known is not None and set(data.names) <= set(known.names):
        return known
    with _at(Stage.CLASSES):
        labels = await site.cloud.propose_classes(task.cycle_id, data.names)
        labels.ids_of(data.names)
        site.journal.set_labels(task.cycle_id, labels)
    return labels


async def _validate(site: SiteContext, task: Task, reporter: ProgressReporter) -> None:
    assert task.student and task.student.onnx
    with _at(Stage.DATA):
        data = await asyncio.to_thread(site.read_data)
    with _at(Stage.DOWNLOAD):
        onnx = await site.cloud.fetch(task.student.onnx, ".onnx")
    spec = ValidateSpec(data=data.path, onnx=onnx, labels=task.student.spec.labels)
    result = await _run(site, task, VALIDATE_JOB, spec, ValidateResult, reporter)
    with _at(Stage.SUBMIT):
        await site.cloud.submit_validation(task.cycle_id, result.figures)


async def _run(
    site: SiteContext, task: Task, module: str, spec: BaseModel, result: type[Result], reporter: ProgressReporter
) -> Result:
    async def note(progress: Progress) -> None:
        reporter.update(progress.step, progress.fraction, progress.message)

    with _at(Stage.JOB), no_room_at(site.jobs):
        return await site.executor.run(module, spec, result, site.folder(task), note)


def _byte_progress(reporter: ProgressReporter, step: str) -> Callable[[int, int], None]:
    def note(done: int, total: int) -> None:
        reporter.update(step, done / total if total else 1.0, f"{done}/{total} bytes")

    return note
