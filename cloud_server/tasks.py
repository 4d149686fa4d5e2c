"""Pure rules on what a site has to do.

Tasks are worked out from the site's cycles and are not stored, so they cannot disagree with the state of a cycle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cloud_server.entities import Cycle, Part
from cloud_server.states import BEFORE_UPLOAD, State
from diredi.errors import InvalidInput


class TaskKind(StrEnum):
    """What a site is asked to do."""

    EXTRACT = "extract"
    VALIDATE = "validate"
    VALIDATE_EXTERNAL = "validate-external"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Task:
    """Something that one site has to do for one cycle."""

    kind: TaskKind
    cycle: Cycle
    part: Part
    """The part of the site whose task it is."""

    @property
    def id(self) -> str:
        """CYCLE/KIND."""
        return f"{self.cycle.id}/{self.kind}"

    @property
    def key(self) -> tuple[str, bool]:
        """What a site must hear of: a stream sends a task again only when its key has changed."""
        return self.id, self.part.approved


def open_tasks(cycles: Iterable[Cycle], site: str) -> list[Task]:
    """Return what a site has to do, in the order of its cycles.

    Args:
        cycles: Cycles in which the site takes part.
        site: The site's name.
    """
    kinds = [(_task_kind(cycle, cycle.part(site)), cycle) for cycle in cycles]
    return [Task(kind, cycle, cycle.part(site)) for kind, cycle in kinds if kind is not None]


def external_tasks(cycles: Iterable[Cycle], site: str) -> list[Task]:
    """Return what a site has to do for cycles that it takes no part in.

    Args:
        cycles: Cycles in CANARY.
        site: The site's name.
    """
    return [
        Task(TaskKind.VALIDATE_EXTERNAL, cycle, Part(site=site, progressed_at=cycle.progressed_at))
        for cycle in cycles
        if (asked := cycle.external.get(site)) is not None and asked.is_open
    ]


def _task_kind(cycle: Cycle, part: Part) -> TaskKind | None:
    # Whoever still works for a cycle that has ended, or that its site is out of, is told to stop.
    if not part.active or cycle.state in {State.ROLLED_BACK, State.REJECTED, State.FAILED}:
        return TaskKind.CANCEL
    if part.state in BEFORE_UPLOAD:
        return TaskKind.EXTRACT
    if cycle.state is State.CANARY and part.after is None:
        return TaskKind.VALIDATE
    return None


def parse_task_id(task_id: str) -> tuple[str, TaskKind]:
    """Split a task's id into the id of the cycle and the kind.

    Raises:
        InvalidInput: That is not the id of a task.
    """
    cycle_id, _, kind = task_id.partition("/")
    if not cycle_id or kind not in set(TaskKind):
        raise InvalidInput(f"{task_id!r} is not the id of a task: send the id that WatchTasks gave")
    return cycle_id, TaskKind(kind)
