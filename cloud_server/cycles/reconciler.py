"""Drives every open cycle on: the cloud's own steps, one cycle at a time, and the deadlines of all.

It keeps nothing in memory that matters. Started on the state of a cloud that was killed, it goes on with what is
recorded there.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

import structlog

from cloud_server import canary
from cloud_server.context import CloudContext
from cloud_server.cycles import deadlines, transitions
from cloud_server.cycles.pipeline import CyclePipeline
from cloud_server.entities import Cycle
from cloud_server.notifier import CYCLES
from cloud_server.states import BEFORE_UPLOAD, CLOUD_WORKS, State
from cloud_server.store.repository import Repository
from diredi.errors import DirediError, NoRoom, Unreachable

_log = structlog.get_logger()
_LOOK_EVERY_S: Final = 30.0
_TRY_AGAIN_S: Final = 5.0


class CycleReconciler:
    def __init__(
        self,
        context: CloudContext,
        pipeline: CyclePipeline,
        *,
        progress_deadline_s: float,
        straggler_deadline_s: float,
        canary_deadline_s: float,
    ) -> None:
        self._context = context
        self._pipeline = pipeline
        self._progress_deadline = timedelta(seconds=progress_deadline_s)
        self._straggler_deadline = timedelta(seconds=straggler_deadline_s)
        self._canary_deadline = timedelta(seconds=canary_deadline_s)
        shortest_s = min(progress_deadline_s, straggler_deadline_s, canary_deadline_s)
        self._look_every_s = min(_LOOK_EVERY_S, shortest_s / 4)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work())
            group.create_task(self._watch_deadlines())

    async def _work(self) -> None:
        while True:
            seen_version = self._context.notifier.version(CYCLES)
            try:
                for cycle in await self._context.database.read(lambda r: r.cycles.unfinished(states=CLOUD_WORKS)):
                    await self._drive(cycle)
            except (Unreachable, NoRoom) as error:  # what is recorded is safe: wait until it can go on
                _log.warning("cannot go on yet", error=str(error))
                await asyncio.sleep(_TRY_AGAIN_S)
                continue
            await self._context.notifier.wait_for_change(CYCLES, seen_version, self._look_every_s)

    async def _drive(self, cycle: Cycle) -> None:
        """One cycle, as far as the cloud alone can bring it."""
        while cycle.state in CLOUD_WORKS:
            try:
                cycle = await self._pipeline.advance(cycle)
            except (Unreachable, NoRoom):
                raise
            except DirediError as error:
                cycle = await self._fail(cycle, str(error))
            except Exception:  # a defect that one cycle brings to light must not stop those of all other sites
                _log.exception("step broke", cycle=cycle.id, state=str(cycle.state))
                cycle = await self._fail(cycle, f"an error of the cloud's own while it was {cycle.state}: see its log")
            _log.info("cycle moved", cycle=cycle.id, sites=cycle.sites, state=str(cycle.state), reason=_why(cycle))

    async def _fail(self, cycle: Cycle, reason: str) -> Cycle:
        now = self._context.now()

        def fail(r: Repository) -> Cycle:
            stored = r.cycles.get(cycle.id)
            return stored if stored.ended else r.cycles.move(cycle.id, State.FAILED, now, transitions.CLOUD, reason)

        return self._context.moved(await self._context.database.write(fail))

    async def _watch_deadlines(self) -> None:
        while True:
            try:
                await self.end_overdue()
            except (Unreachable, NoRoom) as error:
                _log.warning("deadlines not looked at", error=str(error))
            await asyncio.sleep(self._look_every_s)

    async def end_overdue(self) -> list[Cycle]:
        """Ends each cycle that has waited too long, and says for whom it waited."""
        now = self._context.now()
        ended = await self._context.database.write(lambda r: self._end_overdue(r, now))
        return [self._context.moved(cycle) for cycle in ended]

    def _end_overdue(self, r: Repository, now: datetime) -> list[Cycle]:
        ended = []
        for cycle in r.cycles.unfinished():
            waited = now - cycle.progressed_at
            if cycle.state in BEFORE_UPLOAD:
                ended += self._drop_silent(r, cycle, now)
            elif cycle.state is State.CANARY:
                ended += self._end_canary(r, cycle, now)
            elif waited > self._progress_deadline:
                said = f"no progress for {_said(waited)} while it was {cycle.state}: see the cloud's log"
                ended.append(r.cycles.move(cycle.id, State.FAILED, now, transitions.CLOUD, said))
        return ended

    def _drop_silent(self, r: Repository, cycle: Cycle, now: datetime) -> list[Cycle]:
        """Sites that make no progress; the cycle goes on without them, or ends where none is left."""
        dropped = []
        for part in deadlines.find_overdue(cycle.parts, now, self._progress_deadline, self._straggler_deadline):
            said = f"no progress for {_said(now - part.progressed_at)} while it was {part.state}: is {part.site} up?"
            dropped.append(transitions.drop_site(r, cycle.id, part.site, State.FAILED, said, transitions.CLOUD, now))
        return dropped[-1:]

    def _end_canary(self, r: Repository, cycle: Cycle, now: datetime) -> list[Cycle]:
        """A canary that is silent, or a site that does not validate: the release is taken back."""
        since = next(t.at for t in reversed(cycle.history) if t.state is State.CANARY)
        silent = canary.find_silent(transitions.collect_canary_reports(r, cycle))
        missing = [part.site for part in cycle.active_parts if part.after is None]
        if silent and now - since > self._canary_deadline:
            said = f"canary {', '.join(silent)} said nothing for {_said(now - since)}"
        elif missing and now - cycle.progressed_at > self._progress_deadline:
            said = f"site {', '.join(missing)} did not validate within {_said(now - cycle.progressed_at)}"
        else:
            return []
        decision = canary.Decision(State.ROLLED_BACK, said)
        return [transitions.end_canary(r, cycle, decision, transitions.CLOUD, now, {})]


def _said(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"


def _why(cycle: Cycle) -> str:
    return cycle.history[-1].reason if cycle.history else ""
