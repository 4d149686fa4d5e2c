"""The reconciler drives every unfinished cycle on: it runs the cloud's own steps and ends what is overdue.

All that it needs is stored. Started on the state of a cloud that was killed, it continues from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from cloud_server import canary
from cloud_server.context import CloudContext
from cloud_server.cycles import rebase, transitions
from cloud_server.cycles.pipeline import CyclePipeline
from cloud_server.cycles.waits import count_waits
from cloud_server.entities import Cycle, Part, UpdateWait
from cloud_server.fleet import rollout
from cloud_server.notifier import CYCLES
from cloud_server.rollout_rules import RolloutRules
from cloud_server.states import BEFORE_UPLOAD, CLOUD_WORKS, State
from cloud_server.store import Repository
from diredi.errors import DirediError, NoRoom, Unreachable

_log = structlog.get_logger()
_LOOK_EVERY_S: Final = 30.0
_TRY_AGAIN_S: Final = 5.0


class CycleReconciler:
    """Runs the steps of one cycle after the other, and watches the deadlines of all."""

    def __init__(
        self,
        context: CloudContext,
        pipeline: CyclePipeline,
        *,
        progress_deadline_s: float,
        straggler_deadline_s: float,
        canary_deadline_s: float,
        is_published: Callable[[int], bool] = lambda _: True,
        rollout_rules: RolloutRules | None = None,
    ) -> None:
        """Create the reconciler.

        Args:
            context: What the services share.
            pipeline: The cloud's own steps.
            progress_deadline_s: A cycle or a site without progress for so long is given up.
            straggler_deadline_s: A site without progress for so long, while another one waits, drops out.
            canary_deadline_s: A canary that reports nothing for so long counts as failed.
            is_published: Whether devices may be told to run a release, which may wait for somebody's signature.
            rollout_rules: When the rollout of a release goes on or pauses.
        """
        self._context = context
        self._pipeline = pipeline
        self._is_published = is_published
        self._rollout_rules = rollout_rules or RolloutRules()
        self._progress_deadline = timedelta(seconds=progress_deadline_s)
        self._straggler_deadline = timedelta(seconds=straggler_deadline_s)
        self._canary_deadline = timedelta(seconds=canary_deadline_s)
        shortest_s = min(progress_deadline_s, straggler_deadline_s, canary_deadline_s, self._rollout_rules.step_s)
        self._look_every_s = min(_LOOK_EVERY_S, shortest_s / 4)

    async def run(self) -> None:
        """Drive cycles on until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work())
            group.create_task(self._watch_deadlines())

    async def _work(self) -> None:
        while True:
            seen_version = self._context.notifier.version(CYCLES)
            try:
                await self._start_rebases()
                for cycle in await self._context.read(lambda r: r.cycles.unfinished(states=CLOUD_WORKS)):
                    await self._drive(cycle)
            except (Unreachable, NoRoom) as error:  # nothing recorded is lost: try again later
                _log.warning("cycles_postponed", error=str(error))
                await asyncio.sleep(_TRY_AGAIN_S)
                continue
            await self._context.notifier.wait_for_change(CYCLES, seen_version, self._look_every_s)

    async def _drive(self, cycle: Cycle) -> None:
        """Bring one cycle as far as the cloud alone can bring it."""
        while cycle.state in CLOUD_WORKS:
            try:
                cycle = await self._pipeline.advance(cycle)
            except (Unreachable, NoRoom):
                raise
            except DirediError as error:
                cycle = await self._fail(cycle, str(error))
            except Exception:  # a defect that one cycle brings to light must not stop the others
                _log.exception("cycle_step_crashed", cycle=cycle.id, state=str(cycle.state))
                cycle = await self._fail(cycle, f"an error of the cloud's own while it was {cycle.state}: see its log")
            reason = cycle.history[-1].reason
            _log.info("cycle_moved", cycle=cycle.id, sites=cycle.sites, state=str(cycle.state), reason=reason)

    async def _start_rebases(self) -> None:
        """Start a rebase for each scope that a newer release has left behind."""
        for scope in await self._context.read(rebase.find_due_rebases):
            try:
                cycle = await self._context.write(partial(rebase.start_due_rebase, scope=scope))
            except (Unreachable, NoRoom):
                raise
            except DirediError as error:  # such as a recipe of a time before that this version does not read
                _log.warning("rebase_not_started", scope=scope, error=str(error))
                continue
            if cycle is not None:
                _log.info("rebase_started", cycle=cycle.id, scope=cycle.scope, release=cycle.rebases)

    async def _fail(self, cycle: Cycle, reason: str) -> Cycle:
        def fail(r: Repository, now: datetime) -> Cycle:
            stored = r.cycles.get(cycle.id)
            return stored if stored.ended else r.cycles.move(cycle.id, State.FAILED, now, transitions.CLOUD, reason)

        return await self._context.write(fail)

    async def _watch_deadlines(self) -> None:
        looked_at = time.monotonic()
        while True:
            now = time.monotonic()
            try:
                moved = await self._context.write(partial(self._end_overdue, elapsed_s=now - looked_at))
                looked_at = now
                for what in moved:
                    _log.info("rollout_moved", what=what)
            except (Unreachable, NoRoom) as error:
                _log.warning("deadlines_not_checked", error=str(error))
            await asyncio.sleep(self._look_every_s)

    def _end_overdue(self, r: Repository, now: datetime, elapsed_s: float) -> list[str]:
        """End each cycle that has waited too long, and bring rollouts on; return what became of these, in words."""
        for cycle in count_waits(r, now, elapsed_s, self._is_published):
            waited = now - cycle.progressed_at
            if cycle.state in BEFORE_UPLOAD:
                self._drop_overdue_sites(r, cycle, now)
            elif cycle.state is State.CANARY:
                self._roll_back_overdue_canary(r, cycle, now)
            elif waited > self._progress_deadline:
                reason = f"no progress for {_seconds(waited)} while it was {cycle.state}: see the cloud's log"
                r.cycles.move(cycle.id, State.FAILED, now, transitions.CLOUD, reason)
        return rollout.advance_all(r, now, elapsed_s, self._rollout_rules)

    def _drop_overdue_sites(self, r: Repository, cycle: Cycle, now: datetime) -> None:
        """Go on without the sites that make no progress; where none is left, the cycle ends."""
        for part in find_overdue(cycle.parts, now, self._progress_deadline, self._straggler_deadline):
            waited = _seconds(now - part.progressed_at)
            reason = f"no progress for {waited} while it was {part.state}: is {part.site} up?"
            transitions.drop_site(r, cycle.id, part.site, State.FAILED, reason, transitions.CLOUD, now)

    def _roll_back_overdue_canary(self, r: Repository, cycle: Cycle, now: datetime) -> None:
        """Take the release back where a canary is silent or a site does not validate."""
        since = next(t.at for t in reversed(cycle.history) if t.state is State.CANARY)
        silent = canary.find_silent(transitions.collect_canary_reports(r, cycle))
        if silent and now - since > self._canary_deadline:
            held = [key for key in silent if (device := r.devices.find(key)) and device.update_wait is UpdateWait.HELD]
            silent = [key for key in silent if key not in held]
            if (
                held
                and not silent
                and transitions.decide_canary(r, cycle.id, transitions.CLOUD, now, without=held).state
                is not State.CANARY
            ):
                return
        if now - since > self._canary_deadline and (
            unheard := [site for site, asked in cycle.external.items() if asked.is_open]
        ):
            why = f"said nothing within {_seconds(now - since)}"
            cycle = transitions.give_up_external(r, cycle.id, unheard, why, now)
            if cycle.state is not State.CANARY:
                return
        missing = [part.site for part in cycle.active_parts if part.after is None]
        is_unsigned = silent and not self._is_published(cycle.release_version)
        if is_unsigned and now - since > self._progress_deadline:
            reason = f"release {cycle.release_version} was not signed within {_seconds(now - since)}"
        elif silent and not is_unsigned and now - since > self._canary_deadline:
            reason = f"canary {', '.join(silent)} said nothing for {_seconds(now - since)}"
        elif missing and now - cycle.progressed_at > self._progress_deadline:
            reason = f"site {', '.join(missing)} did not validate within {_seconds(now - cycle.progressed_at)}"
        else:
            return
        decision = canary.Decision(State.ROLLED_BACK, reason)
        transitions.end_canary(r, cycle, decision, transitions.CLOUD, now, {})


def find_overdue(
    parts: Sequence[Part], now: datetime, progress_deadline: timedelta, straggler_deadline: timedelta
) -> list[Part]:
    """Return the parts of the sites that have made no progress for too long before their upload.

    Each report of progress begins the time anew, so a site that is only slow is never overdue.

    Args:
        parts: All parts of the cycle.
        now: The current time.
        progress_deadline: How long a site may make no progress.
        straggler_deadline: The same while another site has uploaded its gap and has waited as long.
    """
    uploaded = [part.progressed_at for part in parts if part.state is State.UPLOADED]

    def is_overdue(part: Part) -> bool:
        delays_others = bool(uploaded) and now - max(part.progressed_at, min(uploaded)) > straggler_deadline
        return delays_others or now - part.progressed_at > progress_deadline

    return [part for part in parts if part.state in BEFORE_UPLOAD and is_overdue(part)]


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"
