"""From nothing to release 1: the first models, the label space and the coreset, stored in one transaction."""

from __future__ import annotations

from datetime import datetime

import structlog

from cloud_server.context import CloudContext
from cloud_server.entities import Model, ModelKind, Release, ReleaseStatus
from cloud_server.jobs.runner import JobRunner
from cloud_server.store.repository import Repository
from diredi.knowledge.jobs.specs import FirstModel
from diredi.progress import Progress

_log = structlog.get_logger()


async def make_first_release(context: CloudContext, job_runner: JobRunner) -> Release:
    """The current release; makes it where there is none. Killed on the way, it goes on with what its job has left."""
    current = await context.read(lambda r: r.releases.current())
    if current is not None:
        return current
    made = await job_runner.bootstrap(_log_progress)
    tutor = await _store_model(context, job_runner, ModelKind.TUTOR, made.tutor)
    student = await _store_model(context, job_runner, ModelKind.STUDENT, made.student, tutor.id)
    teacher = None if made.teacher is None else await _store_model(context, job_runner, ModelKind.TEACHER, made.teacher)
    coreset = None if made.coreset is None else await job_runner.store_file(made.coreset.path, made.coreset.digest)

    def store(r: Repository, now: datetime) -> Release:
        existing = r.releases.current()
        if existing is not None:
            return existing
        for model in (teacher, tutor, student):
            if model is not None:
                r.models.add(model)
        r.classes.assign_ids(tutor.labels.names, "", now)
        if coreset is not None:
            r.facts.put("coreset", {"digest": coreset.digest, "bytes": coreset.bytes})
        return r.releases.add(student, tutor.id, ReleaseStatus.RELEASED, (), "", now)

    release = await context.write(store)
    job_runner.discard("bootstrap")
    job_runner.discard("starter")
    return release


async def _store_model(
    context: CloudContext, job_runner: JobRunner, kind: ModelKind, made: FirstModel, parent_id: str = ""
) -> Model:
    return await job_runner.store_model(kind, made, "", parent_id, presumed=made.figures, created=context.now())


async def _log_progress(progress: Progress) -> None:
    _log.info("bootstrap_progressed", step=progress.step, fraction=progress.fraction, message=progress.message)
