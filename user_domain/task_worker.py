"""Takes tasks from the cloud's stream and works on one after the other."""

from __future__ import annotations

import asyncio
import shutil

import structlog

from diredi.errors import DirediError, RemoteFailure, Unreachable
from diredi.jobs import job_folder
from diredi.labels import LabelSpace
from diredi.rpc.retry import Backoff
from diredi.rpc.v1 import sites_pb2
from user_domain.consent import Answer
from user_domain.failure_reasons import Action, Reason, Stage, action_for, reason_for
from user_domain.task_handlers import Declined, SiteContext, StageError, perform
from user_domain.tasks import Task, TaskKind, parse_task

MAX_ATTEMPTS = 4
"""How often a stage is tried that meets damaged bytes, before the task fails."""


class TaskWorker:
    """Perform tasks. A task may be accepted twice: one under way goes on, and what is finished is not done again."""

    def __init__(self, site: SiteContext, backoff: Backoff) -> None:
        """Make a worker.

        Args:
            site: What tasks are performed with.
            backoff: Pauses between two attempts.
        """
        self._site = site
        self._backoff = backoff
        self._open: dict[str, Task] = {}
        self._changed = asyncio.Event()
        self._current: tuple[Task, asyncio.Task[None]] | None = None
        self._reports: dict[str, asyncio.Task[None]] = {}
        self._log = structlog.get_logger()
        self.last_error = ""
        self.known: LabelSpace | None = None
        """The classes that the cloud knew when it last offered an extraction."""

    @property
    def cycle_id(self) -> str:
        """The cycle under way or waiting for approval; empty for none."""
        return next((task.cycle_id for task in self._open.values()), "")

    async def accept(self, message: sites_pb2.Task) -> None:
        """Take a task from the stream: a new one, a changed one, or one that was there before."""
        try:
            task = parse_task(message)
        except DirediError as error:
            self._log_error("task_rejected", error)
            if message.kind != sites_pb2.TASK_KIND_CANCEL and message.id not in self._reports:
                self._reports[message.id] = asyncio.create_task(self._report_unusable(message.id))
            return
        if task.kind is TaskKind.CANCEL:
            self._cancel(task.cycle_id)
            return
        if task.kind is TaskKind.EXTRACT and task.tutor is not None:
            self.known = task.tutor.spec.labels
        if task.id not in self._open:
            style = {"publishes_style": self._site.publish_style} if task.kind is TaskKind.EXTRACT else {}
            self._log.info("task_offered", task=task.id, waits=self._waits(task), **style)
        self._open[task.id] = task
        self._changed.set()

    @property
    def waiting(self) -> list[Task]:
        """The tasks that wait for a person's decision."""
        return [task for task in self._open.values() if self._waits(task)]

    def decision_recorded(self) -> None:
        """Look at the waiting tasks again."""
        self._changed.set()

    def _waits(self, task: Task) -> bool:
        try:
            return self._site.consent.judge(task).answer is Answer.WAITS
        except DirediError:  # which its handler meets and reports
            return False

    def forget_waiting(self) -> None:
        """Forget the tasks that have not begun; on a new connection the cloud names all open tasks again."""
        current = self._current[0].id if self._current else ""
        self._open = {name: task for name, task in self._open.items() if name == current}

    async def run(self) -> None:
        """Work on the open tasks, for ever."""
        while True:
            task = next((task for task in self._open.values() if not self._waits(task)), None)
            if task is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            completing = asyncio.create_task(self._complete(task))
            self._current = (task, completing)
            try:
                await asyncio.wait({completing})
            finally:
                completing.cancel()
                self._current = None
            if not completing.cancelled():
                completing.result()
            self._open.pop(task.id, None)

    def _cancel(self, cycle_id: str) -> None:
        for task in [task for task in self._open.values() if task.cycle_id == cycle_id]:
            self._log.info("task_cancelled", task=task.id)
            del self._open[task.id]
            if self._current is not None and self._current[0].id == task.id:
                self._current[1].cancel()

    async def _complete(self, task: Task) -> None:
        """Return when the task is performed, reported as failed or dropped, however long the cloud is away.

        `action_for` says what follows from an error. A failure is in the journal before the cloud is told of it.
        """
        self._backoff.reset()
        attempts, failure, refusal = 0, None, ""
        while True:
            try:
                self._prepare(task)
                if failure is not None:
                    self._site.journal.set_failure(task.cycle_id, task.id, failure)
                reason = self._site.journal.failure(task.cycle_id, task.id)
                if reason is not None:
                    await self._site.cloud.report_failure(task.id, reason)
                    return
                if refusal:
                    await self._refuse(task, refusal)
                    return
                await self._agree(task)
                await perform(self._site, task)
                self._log.info("task_completed", task=task.id)
                self.last_error = ""
                return
            except (DirediError, StageError) as error:
                stage, cause = (error.stage, error.error) if isinstance(error, StageError) else (None, error)
                if isinstance(cause, Declined):
                    refusal = str(cause)
                    continue
                action = action_for(stage, cause)
                if action is Action.RETRY:
                    attempts += 1
                    action = Action.WAIT if attempts < MAX_ATTEMPTS else Action.FAIL
                if action is Action.DROP:
                    self._log_error("task_dropped", cause, task=task.id)
                    return
                if action is Action.FAIL and stage is not None:
                    self._log_error("task_failed", cause, task=task.id, stage=str(stage))
                    failure = reason_for(stage, cause)
                    continue
                if isinstance(cause, Unreachable) and not isinstance(cause, RemoteFailure):
                    self._site.cloud.set_online(False, str(cause))
                else:
                    self._log_error("task_paused", cause, task=task.id)
            await asyncio.sleep(self._backoff.next_s())

    async def _agree(self, task: Task) -> None:
        """Have an approval of the task in the journal before anything is done for it, and let the cloud know.

        Raises:
            StageError: The site does not agree, or the task's recipe is none.
        """
        try:
            verdict = self._site.consent.judge(task)
        except DirediError as error:
            raise StageError(Stage.JOB, error) from error
        if verdict.answer is not Answer.YES:
            raise StageError(Stage.CONSENT, Declined(verdict.reason or "not approved"))
        self._site.consent.approve_by_policy(task)
        if task.kind is TaskKind.EXTRACT and not task.approved:
            await self._site.cloud.report_approval(task.cycle_id)

    async def _refuse(self, task: Task, reason: str) -> None:
        self._log.warning("task_declined", task=task.id, reason=reason)
        self.last_error = f"declined {task.id}: {reason}"
        if task.kind is TaskKind.EXTRACT:
            await self._site.cloud.decline(task.cycle_id, reason)
        else:
            await self._site.cloud.report_failure(task.id, f"{Reason.CONSENT}: {reason}")

    def _prepare(self, task: Task) -> None:
        """Begin the cycle in the journal, and delete the work files of cycles that it no longer holds."""
        journal = self._site.journal
        journal.begin(task.cycle_id)
        known = {job_folder(self._site.jobs, cycle_id).name for cycle_id in journal.cycles}
        if self._site.jobs.is_dir():
            for folder in self._site.jobs.iterdir():
                if folder.name not in known:
                    shutil.rmtree(folder, ignore_errors=True)

    async def _report_unusable(self, task_id: str) -> None:
        """Report that a task makes no sense, until the cloud has heard it."""
        backoff = Backoff(self._backoff.first_s, self._backoff.longest_s)
        try:
            while True:
                try:
                    return await self._site.cloud.report_failure(task_id, Reason.TASK)
                except DirediError as error:
                    self._log_error("failure_report_failed", error, task=task_id)
                    if action_for(None, error) is Action.DROP:
                        return None
                await asyncio.sleep(backoff.next_s())
        finally:
            del self._reports[task_id]

    def _log_error(self, event: str, error: Exception, **more: object) -> None:
        is_defect = not isinstance(error, DirediError)
        self.last_error = f"{type(error).__name__}: {error}" if is_defect else str(error)
        self._log.error(event, error=self.last_error, exc_info=error if is_defect else None, **more)
