"""How long cycles and sites have waited, by a clock that nobody sets.

The wall clock may jump: days on, and every cycle would end at once; a year back, and none would ever end. So a wait is
the time that this process has counted since it saw the last sign of progress. It is stored, goes on after a restart,
and does not grow while the cloud is down and nobody could have reported anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from cloud_server.entities import Cycle, Json
from cloud_server.states import State
from cloud_server.store import Repository

_FACT: Final = "waits"
Wait = list[Any]
"""A mark of progress, and for how many seconds it has been the last one; as JSON has it."""


def count_waits(
    r: Repository, now: datetime, elapsed_s: float, is_published: Callable[[int], bool] = lambda _: True
) -> list[Cycle]:
    """Add the time since the last look to what each unfinished cycle, and each of its sites, has waited.

    Args:
        r: The repository.
        now: The current time of the wall clock.
        elapsed_s: Seconds since the last look.
        is_published: Whether devices may be told to run a release. Canaries are waited for from then on.

    Returns:
        The unfinished cycles, oldest first. Their times are as far before `now` as has really been waited.
    """
    cycles, before = r.cycles.unfinished(), r.facts.get(_FACT) or {}
    after = {
        key: add_wait(before.get(key), mark, elapsed_s) for cycle in cycles for key, mark in _marks(cycle, is_published)
    }
    if after != before:
        r.facts.put(_FACT, after)
    return [_shift(cycle, after, now) for cycle in cycles]


def add_wait(before: Wait | None, mark: str, elapsed_s: float) -> Wait:
    """Return a mark of progress and how long it has been the last one, in seconds.

    Args:
        before: The same at the last look; None where there was no such wait.
        mark: The mark of now. Another one than before begins a new wait.
        elapsed_s: Seconds since the last look.
    """
    if before is None or before[0] != mark:
        return [mark, 0.0]
    return [mark, before[1] + elapsed_s]


def _marks(cycle: Cycle, is_published: Callable[[int], bool]) -> Iterator[tuple[str, str]]:
    """A key and a mark of progress for each wait: the cycle's, each site's, and that in the present state."""
    yield cycle.id, cycle.progressed_at.isoformat()
    for part in cycle.parts:
        yield f"{cycle.id}/{part.site}", part.progressed_at.isoformat()
    is_waiting = cycle.state is State.CANARY and not is_published(cycle.release_version)
    yield f"{cycle.id} {cycle.state}", "waits for signatures" if is_waiting else str(cycle.state)


def _shift(cycle: Cycle, waits: Json, now: datetime) -> Cycle:
    def since(key: str) -> datetime:
        return now - timedelta(seconds=waits[key][1])

    parts = tuple(part.model_copy(update={"progressed_at": since(f"{cycle.id}/{part.site}")}) for part in cycle.parts)
    history = tuple(
        step.model_copy(update={"at": since(f"{cycle.id} {cycle.state}")}) if step.state is cycle.state else step
        for step in cycle.history
    )
    return cycle.model_copy(update={"progressed_at": since(cycle.id), "parts": parts, "history": history})
