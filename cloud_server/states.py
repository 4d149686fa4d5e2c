"""The table of a cycle's states, as pure rules.

    REQUESTED ─ OFFERED ─ EXTRACTING ─ UPLOADED ─ APPLIED ─ GATED ─ REDISTILLED ─ CANARY ─ RELEASED
        └──────────┴──────────┤            └─────────┴────────┴──────────┤           └─ ROLLED_BACK
                           DECLINED                                   REJECTED
    ... and FAILED from every state that is not an end.

Up to UPLOADED each site of a cycle has such a state of its own, and the cycle's state follows from theirs
(`joint_state`). A site that is DECLINED or FAILED has dropped out, and the cycle goes on with the others.

Each transition is recorded before it is acted on, and every step may run twice without harm. A server that was killed
therefore needs only this table and the last recorded state to continue.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from diredi.errors import WrongState


class State(StrEnum):
    """A state of a cycle; the names are those of the wire without `CYCLE_STATE_`."""

    REQUESTED = "REQUESTED"
    OFFERED = "OFFERED"
    EXTRACTING = "EXTRACTING"
    UPLOADED = "UPLOADED"
    APPLIED = "APPLIED"
    GATED = "GATED"
    REDISTILLED = "REDISTILLED"
    CANARY = "CANARY"
    RELEASED = "RELEASED"
    DECLINED = "DECLINED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    ROLLED_BACK = "ROLLED_BACK"


_S = State

NEXT: Final = MappingProxyType(
    {
        # A state follows itself where another site reports, and where a site's yes leaves the cycle OFFERED.
        _S.REQUESTED: frozenset({_S.REQUESTED, _S.OFFERED, _S.DECLINED, _S.FAILED}),
        _S.OFFERED: frozenset({_S.OFFERED, _S.EXTRACTING, _S.DECLINED, _S.FAILED}),
        _S.EXTRACTING: frozenset({_S.EXTRACTING, _S.UPLOADED, _S.DECLINED, _S.FAILED}),
        _S.UPLOADED: frozenset({_S.APPLIED, _S.REJECTED, _S.FAILED}),
        _S.APPLIED: frozenset({_S.GATED, _S.REJECTED, _S.FAILED}),
        _S.GATED: frozenset({_S.REDISTILLED, _S.REJECTED, _S.FAILED}),
        _S.REDISTILLED: frozenset({_S.CANARY, _S.REJECTED, _S.FAILED}),
        # Devices may have the release already, so it must be taken back.
        _S.CANARY: frozenset({_S.RELEASED, _S.ROLLED_BACK}),
        _S.RELEASED: frozenset[State](),
        _S.DECLINED: frozenset[State](),
        _S.REJECTED: frozenset[State](),
        _S.FAILED: frozenset[State](),
        _S.ROLLED_BACK: frozenset[State](),
    }
)
"""The states that may follow each state."""

ENDS: Final = frozenset(state for state, following in NEXT.items() if not following)
BEFORE_UPLOAD: Final = frozenset({_S.REQUESTED, _S.OFFERED, _S.EXTRACTING})
"""States in which a site may still decline."""
DROPPED: Final = frozenset({_S.DECLINED, _S.FAILED})
"""States of a site that has dropped out of the cycle."""
CLOUD_WORKS: Final = frozenset({_S.UPLOADED, _S.APPLIED, _S.GATED, _S.REDISTILLED})
"""States whose next step is the cloud's own."""


def check_transition(now: State, following: State) -> None:
    """Check that a state may follow another.

    Raises:
        WrongState: The table does not allow it.
    """
    if following not in NEXT[now]:
        raise WrongState(f"a cycle that is {now} cannot become {following}: ask for its state and go on from there")


def joint_state(now: State, sites: Iterable[State]) -> State:
    """Return what a cycle becomes by the states of its sites, up to UPLOADED.

    The cycle is as far as its furthest site that has not dropped out, and never goes back. It is UPLOADED once all
    these sites are. Where none is left it is DECLINED if all have declined, and FAILED otherwise.

    Args:
        now: The state of the cycle.
        sites: The states of its sites.
    """
    states = list(sites)
    left = [state for state in states if state not in DROPPED]
    if not left:
        return _S.DECLINED if set(states) == {_S.DECLINED} else _S.FAILED
    if set(left) == {_S.UPLOADED}:
        return _S.UPLOADED
    return max((now, *(_S.EXTRACTING if state is _S.UPLOADED else state for state in left)), key=_EARLY.index)


_EARLY: Final = (_S.REQUESTED, _S.OFFERED, _S.EXTRACTING)
