"""Takes tasks from the cloud's stream and performs them one after the other."""

from __future__ import annotations

import asyncio
import shutil

import structlog

from diredi.errors import (
    CorruptData,
    DirediError,
    InvalidInput,
    NoRoom,
    NotFound,
    Refused,
    RemoteFailure,
    Unreachable,
    WrongState,
)
from diredi.jobs import job_folder
from diredi.rpc.retry import Backoff
from diredi.rpc.v1 import sites_pb2
from user_domain.failure_reasons import Reason, Stage, reason_for
from user_domain.task_handlers import SiteContext, TaskFailed, perform
from user_domain.tasks import Task, TaskKind, parse_task

NOT_WANTED = (WrongState, NotFound, Refused, InvalidInput)
"""Answers by which the cloud says that it does not want this task of us, or no longer. Nothing else drops a task."""
DAMAGED_ATTEMPTS = 4
"""How often bytes that arrive damaged, on either side, are sent or fetched again before the task has failed."""


class TaskWorker:
    """Taking a task twice does no harm: one that is under way goes on, one that is finished is found finished."""

    def __init__(self, site: SiteContext, backoff: Backoff) -> None:
        self._site = site
        self._backoff = backoff
        self._open: dict[str, Task] = {}
        self._changed = asyncio.Event()
        self._current: tuple[Task, asyncio.Task[None]] | None = None
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._log = structlog.get_logger()
        self._damaged = 0
        self.last_error = ""

    @property
    def cycle_id(self) -> str:
        """The cycle under way or waiting for approval; empty for none."""
        return next((task.cycle_id for task in self._open.values()), "")

    async def accept(self, message: sites_pb2.Task) -> None:
        """A task from the stream: new, changed or said again."""
        try:
            task = parse_task(message)
        except DirediError as error:
            self._note("task_not_usable", error)
            if message.kind != sites_pb2.TASK_KIND_CANCEL and message.id not in self._telling:
                self._telling[message.id] = asyncio.create_task(self._tell_failure(message.id, Reason.TASK))
            return
        if task.kind is TaskKind.CANCEL:
            self._cancel(task.cycle_id)
            return
        if task.id not in self._open:
            style = {"publishes_style": self._site.publish_style} if task.kind is TaskKind.EXTRACT else {}
            self._log.info("task_offered", task=task.id, approved=task.approved, **style)
        self._open[task.id] = task
        self._changed.set()

    def forget_waiting(self) -> None:
        """A new connection: the cloud says again which tasks are open, so whatever has not begun is dropped."""
        current = self._current[0].id if self._current else ""
        self._open = {name: task for name, task in self._open.items() if name == current}

    async def run(self) -> None:
        """For ever."""
        while True:
            task = next((task for task in self._open.values() if task.may_begin), None)
            if task is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            performing = asyncio.create_task(self._perform(task))
            self._current = (task, performing)
            try:
                await asyncio.wait({performing})
            finally:
                performing.cancel()
                self._current = None
            if not performing.cancelled():
                performing.result()
            self._open.pop(task.id, None)

    def _cancel(self, cycle_id: str) -> None:
        for task in [task for task in self._open.values() if task.cycle_id == cycle_id]:
            self._log.info("task_cancelled", task=task.id)
            del self._open[task.id]
            if self._current is not None and self._current[0].id == task.id:
                self._current[1].cancel()

    async def _perform(self, task: Task) -> None:
        """Until it is done or cannot be done, however often the cloud goes away or fails meanwhile."""
        self._backoff.reset()
        self._damaged = 0
        while True:
            try:
                return await self._attempt(task)
            except RemoteFailure as error:
                self._note("cloud_failed", error, task=task.id)
            except Unreachable as error:
                self._site.cloud.set_online(False, str(error))
            except NoRoom as error:
                self._note("waiting_for_disk_space", error)
            await asyncio.sleep(self._backoff.next_s())

    async def _attempt(self, task: Task) -> None:
        """Raises Unreachable, or NoRoom where not even the journal can be written, to be called again."""
        self._begin(task)
        try:
            failure = self._site.journal.failure(task.cycle_id, task.id) or await self._failure(task)
            if failure is not None:
                await self._site.cloud.report_failure(task.id, failure)
        except NOT_WANTED as error:
            self._note("task_dropped", error, task=task.id)
        except (Unreachable, NoRoom):
            raise
        except DirediError as error:
            raise RemoteFailure(str(error)) from error

    async def _failure(self, task: Task) -> str | None:
        """None when the task was performed; else the reason, in the journal before anybody hears it."""
        try:
            await perform(self._site, task)
        except TaskFailed as failed:
            if self._may_pass(failed):
                raise RemoteFailure(str(failed.error)) from failed
            self._note("task_failed", failed.error, task=task.id, stage=str(failed.stage))
            return self._remember(task, reason_for(failed.stage, failed.error))
        except DirediError:
            raise
        except Exception as error:  # a defect that one task brings to light must not end the site's service
            self.last_error = f"{type(error).__name__}: {error}"
            self._log.exception("task_broke", task=task.id)
            return self._remember(task, Reason.JOB)
        self._log.info("task_done", task=task.id)
        self._backoff.reset()
        self.last_error = ""
        return None

    def _may_pass(self, failed: TaskFailed) -> bool:
        """Whether bytes were damaged on their way or where they lay, which another try may cure."""
        if failed.stage in (Stage.DATA, Stage.JOB) or not isinstance(failed.error, CorruptData):
            return False
        self._damaged += 1
        return self._damaged < DAMAGED_ATTEMPTS

    def _remember(self, task: Task, reason: Reason) -> Reason:
        self._site.journal.set_failure(task.cycle_id, task.id, reason)
        return reason

    def _begin(self, task: Task) -> None:
        """The journal and the work folders keep the last cycles only."""
        journal = self._site.journal
        journal.begin(task.cycle_id)
        keep = {job_folder(self._site.jobs, cycle_id).name for cycle_id in journal.cycles}
        if self._site.jobs.is_dir():
            for folder in self._site.jobs.iterdir():
                if folder.name not in keep:
                    shutil.rmtree(folder, ignore_errors=True)

    async def _tell_failure(self, task_id: str, reason: Reason) -> None:
        """Until the cloud has heard it, beside whatever else is done."""
        backoff = Backoff(self._backoff.first_s, self._backoff.longest_s)
        try:
            while True:
                try:
                    return await self._site.cloud.report_failure(task_id, reason)
                except NOT_WANTED as error:
                    return self._note("failure_not_told", error)
                except DirediError as error:
                    self._note("failure_not_told", error)
                await asyncio.sleep(backoff.next_s())
        finally:
            del self._telling[task_id]

    def _note(self, event: str, error: DirediError, **more: object) -> None:
        self.last_error = str(error)
        self._log.error(event, error=str(error), **more)
