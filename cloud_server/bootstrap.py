"""The first release: models, label space and coreset, made by a job and stored in one transaction."""

from __future__ import annotations

from datetime import datetime

import structlog

from cloud_server.context import CloudContext
from cloud_server.entities import Model, ModelKind, Release, ReleaseStatus
from cloud_server.jobs.runner import JobRunner
from cloud_server.ledger import begin_epoch
from cloud_server.store import Repository
from diredi.knowledge.jobs.specs import FirstModel
from diredi.progress import Progress

_log = structlog.get_logger()


async def make_first_release(context: CloudContext, job_runner: JobRunner) -> Release:
    """Return the current release, and make the first one where there is none.

    A cloud that is killed on the way continues with what its job has left.

    Raises:
        DirediError: The configured data or models are not usable, or the job failed.
    """
    current = await context.read(lambda r: r.releases.current())
    if current is not None:
        return current

    async def store_model(kind: ModelKind, model: FirstModel, parent_id: str = "") -> Model:
        return await job_runner.store_model(kind, model, "", parent_id, presumed=model.metrics, created=context.now())

    result = await job_runner.bootstrap(_log_progress)
    tutor = await store_model(ModelKind.TUTOR, result.tutor)
    student = await store_model(ModelKind.STUDENT, result.student, tutor.id)
    teacher = None if result.teacher is None else await store_model(ModelKind.TEACHER, result.teacher)
    file = result.coreset
    coreset = None if file is None else await job_runner.store_file(file.path, file.digest)

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
        begin_epoch(r)
        return r.releases.add(student, tutor.id, ReleaseStatus.RELEASED, (), "", now)

    release = await context.write(store)
    job_runner.discard("bootstrap")
    job_runner.discard("starter")
    return release


async def _log_progress(progress: Progress) -> None:
    _log.info("bootstrap_progressed", step=progress.step, fraction=progress.fraction, message=progress.message)
