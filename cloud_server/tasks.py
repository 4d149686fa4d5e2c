"""What a site has to do, worked out from its cycles: a queue that cannot disagree with the state of a cycle. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cloud_server.entities import Cycle, Part
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
    part: Part
    """Of the site whose task it is."""

    @property
    def id(self) -> str:
        return f"{self.cycle.id}/{self.kind}"

    @property
    def key(self) -> tuple[str, bool]:
        """Equal for two tasks that say the same: a stream sends a task again only when this has changed."""
        return self.id, self.part.approved


def open_tasks(cycles: Iterable[Cycle], site: str) -> list[Task]:
    """That site's, in the order of the cycles."""
    found = [(_kind(cycle, cycle.part(site)), cycle) for cycle in cycles]
    return [Task(kind, cycle, cycle.part(site)) for kind, cycle in found if kind is not None]


def _kind(cycle: Cycle, part: Part) -> TaskKind | None:
    """A cycle that ended, or that its site is out of, is cancelled for whoever may still be working on it."""
    if not part.active or cycle.state in {State.ROLLED_BACK, State.REJECTED, State.FAILED}:
        return TaskKind.CANCEL
    if part.state in BEFORE_UPLOAD:
        return TaskKind.EXTRACT
    if cycle.state is State.CANARY and part.after is None:
        return TaskKind.VALIDATE
    return None


def parse_task_id(task_id: str) -> tuple[str, TaskKind]:
    """Cycle id and kind. Raises InvalidInput."""
    cycle_id, _, kind = task_id.partition("/")
    if not cycle_id or kind not in set(TaskKind):
        raise InvalidInput(f"{task_id!r} is not the id of a task: send the id that WatchTasks gave")
    return cycle_id, TaskKind(kind)
