"""What a site has to do, worked out from its cycles: a queue that cannot disagree with the state of a cycle. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cloud_server.domain import Cycle
from cloud_server.states import BEFORE_UPLOAD, State
from diredi.errors import InvalidInput


class TaskKind(StrEnum):
    EXTRACT = "extract"
    VALIDATE = "validate"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Task:
    kind: TaskKind
    cycle: Cycle

    @property
    def id(self) -> str:
        return f"{self.cycle.id}/{self.kind}"

    @property
    def key(self) -> tuple[str, bool]:
        """Equal for two tasks that say the same: a stream sends a task again only when this has changed."""
        return self.id, self.cycle.approved


def open_tasks(cycles: Iterable[Cycle]) -> list[Task]:
    """Oldest cycle first. A cycle that ended before its upload is cancelled for whoever may still be working on it."""
    tasks = []
    for cycle in cycles:
        if cycle.state in BEFORE_UPLOAD:
            tasks.append(Task(TaskKind.EXTRACT, cycle))
        elif cycle.state is State.CANARY and cycle.site_after is None:
            tasks.append(Task(TaskKind.VALIDATE, cycle))
        elif cycle.state in {State.DECLINED, State.FAILED, State.ROLLED_BACK, State.REJECTED}:
            tasks.append(Task(TaskKind.CANCEL, cycle))
    return tasks


def parsed(task_id: str) -> tuple[str, TaskKind]:
    """Cycle id and kind. Raises InvalidInput."""
    cycle_id, _, kind = task_id.partition("/")
    if not cycle_id or kind not in set(TaskKind):
        raise InvalidInput(f"{task_id!r} is not the id of a task: send the id that WatchTasks gave")
    return cycle_id, TaskKind(kind)
