"""The table of a cycle's states: pure rules, no I/O.

    REQUESTED ─ OFFERED ─ EXTRACTING ─ UPLOADED ─ APPLIED ─ GATED ─ REDISTILLED ─ CANARY ─ RELEASED
        └──────────┴──────────┤            └─────────┴────────┴──────────┤           └─ ROLLED_BACK
                           DECLINED                                   REJECTED
    ... and FAILED from every state that is not an end.

Up to UPLOADED each site of a cycle has such a state of its own, and the cycle's state follows from theirs
(`joint_state`). A site that is DECLINED or FAILED has dropped out, and the cycle goes on with the others.

Each transition is recorded before it is acted on, and every step may run twice without harm. So a server that is killed
needs nothing but this table and the last recorded state to go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from diredi.errors import WrongState


class State(StrEnum):
    """Names are those of the wire (`CYCLE_STATE_` cut off)."""

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
        # The same twice: what another site says, and OFFERED again with a site's yes.
        _S.REQUESTED: frozenset({_S.REQUESTED, _S.OFFERED, _S.DECLINED, _S.FAILED}),
        _S.OFFERED: frozenset({_S.OFFERED, _S.EXTRACTING, _S.DECLINED, _S.FAILED}),
        _S.EXTRACTING: frozenset({_S.EXTRACTING, _S.UPLOADED, _S.DECLINED, _S.FAILED}),
        _S.UPLOADED: frozenset({_S.APPLIED, _S.REJECTED, _S.FAILED}),
        _S.APPLIED: frozenset({_S.GATED, _S.REJECTED, _S.FAILED}),
        _S.GATED: frozenset({_S.REDISTILLED, _S.REJECTED, _S.FAILED}),
        _S.REDISTILLED: frozenset({_S.CANARY, _S.REJECTED, _S.FAILED}),
        # A release that is out is never merely FAILED: it is taken back.
        _S.CANARY: frozenset({_S.RELEASED, _S.ROLLED_BACK}),
        _S.RELEASED: frozenset[State](),
        _S.DECLINED: frozenset[State](),
        _S.REJECTED: frozenset[State](),
        _S.FAILED: frozenset[State](),
        _S.ROLLED_BACK: frozenset[State](),
    }
)
"""State to the states that may follow it."""

ENDS: Final = frozenset(state for state, following in NEXT.items() if not following)
BEFORE_UPLOAD: Final = frozenset({_S.REQUESTED, _S.OFFERED, _S.EXTRACTING})
"""A site may still say no."""
DROPPED: Final = frozenset({_S.DECLINED, _S.FAILED})
"""Of a site: it is out of the cycle."""
CLOUD_WORKS: Final = frozenset({_S.UPLOADED, _S.APPLIED, _S.GATED, _S.REDISTILLED})
"""The next step is a job or a decision of the cloud's own."""


def check_transition(now: State, following: State) -> None:
    """Raises WrongState when the table does not allow it."""
    if following not in NEXT[now]:
        raise WrongState(f"a cycle that is {now} cannot become {following}: ask for its state and go on from there")


def joint_state(now: State, sites: Iterable[State]) -> State:
    """What a cycle that is `now` becomes by the states of its sites, up to UPLOADED.

    As far as the furthest site that is in, and never back; UPLOADED only with all of them. When none is left it is
    DECLINED where all said no, else FAILED.
    """
    states = list(sites)
    left = [state for state in states if state not in DROPPED]
    if not left:
        return _S.DECLINED if set(states) == {_S.DECLINED} else _S.FAILED
    if set(left) == {_S.UPLOADED}:
        return _S.UPLOADED
    return max((now, *(_S.EXTRACTING if state is _S.UPLOADED else state for state in left)), key=_EARLY.index)


_EARLY: Final = (_S.REQUESTED, _S.OFFERED, _S.EXTRACTING)
