"""Following a cycle to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from diredi.errors import DirediError, Refused
from diredi_cli.proto_json import short_name

if TYPE_CHECKING:
    from diredi.rpc.client import Channel
    from diredi.rpc.v1.cycles_pb2 import Cycle, SitePart, Transition
    from diredi_cli.output import Progress

ENDED = {"RELEASED", "DECLINED", "REJECTED", "FAILED", "ROLLED_BACK"}

GIVE_UP_AFTER_S = 120.0
"""A cloud that restarts is back long before; the cycle itself is durable and goes on without a watcher."""

_WAITING_FOR = {
    "REQUESTED": "waiting until the request is taken",
    "OFFERED": "waiting for approval",
    "EXTRACTING": "the knowledge gap is extracted on site",
    "UPLOADED": "what was learned is added to the tutor",
    "APPLIED": "the gate tests the updated tutor",
    "GATED": "a new student is made",
    "REDISTILLED": "the gate tests the new student",
    "CANARY": "the release is validated on site",
}


_ON_SITE = {"REQUESTED", "OFFERED", "EXTRACTING", "CANARY"}


def state_of(cycle: Cycle | Transition | SitePart) -> str:
    """Return the short name of the state of a cycle, of a site in it, or of a transition: "RELEASED"."""
    return short_name(cycle.DESCRIPTOR.fields_by_name["state"].enum_type, cycle.state)


def standing_of(part: SitePart) -> str:
    """Return how far a site is: "EXTRACTING, tutor-2 40 %"."""
    state = "VALIDATED" if part.HasField("site_after") else state_of(part)
    if not part.progress.step:
        return state
    return f"{state}, {part.progress.step} {100 * part.progress.fraction:.0f} %"


async def cycle_changes(channel: Channel, cycle_id: str) -> AsyncIterator[Cycle]:
    """Yield a cycle now and after each change, across reconnects, until it has ended."""
    from diredi.rpc.streams import watch_stream
    from diredi.rpc.v1.cycles_pb2 import WatchCycleRequest
    from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub

    stub = CycleServiceStub(channel)
    request = WatchCycleRequest(id=cycle_id)
    async for message in watch_stream(lambda: stub.WatchCycle(request), ends=True, give_up_after_s=GIVE_UP_AFTER_S):
        yield message.cycle
        if state_of(message.cycle) in ENDED:
            return


async def follow(
    channel: Channel, cycle_id: str, bar: Progress, on_change: Callable[[Cycle], None] | None = None
) -> Cycle:
    """Show the progress of a cycle until it has ended, and return it as it ended."""
    last: Cycle | None = None
    async for cycle in cycle_changes(channel, cycle_id):
        last = cycle
        if on_change is not None:
            on_change(cycle)
        show_progress(cycle, bar)
    if last is None:
        raise DirediError(f"the cloud said nothing about cycle {cycle_id}: see `diredi cycle show {cycle_id}`")
    return last


def show_progress(cycle: Cycle, bar: Progress) -> None:
    """Show what is under way in a cycle, in words, and how far it is."""
    state = state_of(cycle)
    if state in ENDED:
        return
    name = f"{state}: {_WAITING_FOR.get(state, 'under way')}"
    if len(cycle.sites) > 1 and state in _ON_SITE:
        bar.step(name, None, "; ".join(f"{part.site} {standing_of(part)}" for part in cycle.sites))
        return
    under_way = cycle.HasField("progress") and cycle.progress.step
    if not under_way:
        bar.step(name)
        return
    message = f"{cycle.progress.step}: {cycle.progress.message}" if cycle.progress.message else cycle.progress.step
    bar.step(name, cycle.progress.fraction, message)


def check_ended_well(cycle: Cycle, see: str = "") -> None:
    """Raises Refused when a site or a gate said no, DirediError when the cycle failed; the reason is its own.

    `see` says where to read on, by default in the cycle's history.
    """
    state = state_of(cycle)
    if state == "RELEASED" or state not in ENDED:
        return
    last = cycle.history[-1] if cycle.history else None
    why = f" by {last.actor}: {last.reason}" if last is not None else ""
    message = f"cycle {cycle.id} ended {state}{why} (see {see or f'`diredi cycle show {cycle.id}`'})"
    raise Refused(message) if state in {"DECLINED", "REJECTED"} else DirediError(message)
