"""How long each step took: spans on one clock that starts with the demo."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Literal

from diredi_cli.watch import ENDED, state_of
from diredi_demo.report import Span

if TYPE_CHECKING:
    from diredi.rpc.v1.cycles_pb2 import Cycle

Part = Literal["set-up", "cycle", "after"]

STEP_IN_STATE = {
    "REQUESTED": "request",
    "OFFERED": "approve",
    "EXTRACTING": "extract",
    "UPLOADED": "apply",
    "APPLIED": "gate",
    "GATED": "redistil",
    "REDISTILLED": "release",
    "CANARY": "validate",
}
"""What is done while a cycle is in a state."""


class Clock:
    """A collection of spans."""

    def __init__(self) -> None:
        self._epoch = time.time()
        self._origin = time.monotonic()
        self.spans: list[Span] = []

    def now(self) -> float:
        """Return the seconds since the demo began."""
        return time.monotonic() - self._origin

    @contextmanager
    def span(self, name: str, part_of: Part) -> Iterator[None]:
        """Measure the block as a span."""
        start = self.now()
        yield
        self.add(name, start, self.now(), part_of)

    def add(self, name: str, start: float, end: float, part_of: Part) -> None:
        """Add a span."""
        self.spans.append(Span(name=name, start=start, seconds=max(0.0, end - start), part_of=part_of))

    def add_parts(self, name: str, parts: list[tuple[str, float, float]], part_of: Part) -> None:
        """Add the steps inside a span."""
        for step, begun, ended in parts:
            self.add(f"{name}/{step}", begun, ended, part_of)

    def add_cycle(self, cycle: Cycle, within: Stopwatch) -> None:
        """The steps of a cycle by the cloud's own record of when each state began, and what the site did inside."""
        begun = [next(entries) for _, entries in groupby(cycle.history, state_of)]  # a note leaves the state
        for entry, following in pairwise(begun):
            state = state_of(entry)
            if state not in ENDED:
                start, end = (self._since_epoch(e.at) for e in (entry, following))
                self.add(STEP_IN_STATE.get(state, state.lower()), start, end, "cycle")
                self.add_parts(STEP_IN_STATE.get(state, state.lower()), within.steps_in(state, end), "cycle")

    def _since_epoch(self, timestamp: object) -> float:
        from diredi_cli.proto_json import to_datetime

        return to_datetime(timestamp).timestamp() - self._epoch

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each step; a step that ran twice counts with both."""
        result: dict[str, float] = {}
        for span in self.spans:
            result[span.name] = round(result.get(span.name, 0.0) + span.seconds, 3)
        return result


class Stopwatch:
    """The moments at which the steps inside something longer began, taken from its progress."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began: dict[str, dict[str, float]] = {}

    def see(self, where: str, step: str) -> None:
        """Note a sign of progress: this step is under way."""
        self._began.setdefault(where, {}).setdefault(step, self._clock.now())

    def see_cycle(self, cycle: Cycle) -> None:
        """Note a change of a cycle."""
        if cycle.HasField("progress") and cycle.progress.step:
            self.see(state_of(cycle), cycle.progress.step)

    def steps_in(self, where: str, end: float) -> list[tuple[str, float, float]]:
        """Name, begin and end of the steps in `where`, which ended at `end`; one alone is no news."""
        began = self._began.get(where, {})
        ends = [*list(began.values())[1:], end]
        steps = [(step, begin, max(begin, last)) for (step, begin), last in zip(began.items(), ends, strict=False)]
        return steps if len(steps) > 1 else []
