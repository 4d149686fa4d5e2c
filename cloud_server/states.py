"""The table of a cycle's states: pure rules, no I/O.

    REQUESTED ─ OFFERED ─ EXTRACTING ─ UPLOADED ─ APPLIED ─ GATED ─ REDISTILLED ─ CANARY ─ RELEASED
        └──────────┴──────────┤            └─────────┴────────┴──────────┤           └─ ROLLED_BACK
                           DECLINED                                   REJECTED
    ... and FAILED from every state that is not an end.

Each transition is recorded before it is acted on, and every step may run twice without harm. So a server that is killed
needs nothing but this table and the last recorded state to go on.
"""

from __future__ import annotations

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
        _S.REQUESTED: frozenset({_S.OFFERED, _S.DECLINED, _S.FAILED}),
        # OFFERED twice: the second time with the site's yes.
        _S.OFFERED: frozenset({_S.OFFERED, _S.EXTRACTING, _S.DECLINED, _S.FAILED}),
        _S.EXTRACTING: frozenset({_S.UPLOADED, _S.DECLINED, _S.FAILED}),
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
"""The site may still say no."""
CLOUD_WORKS: Final = frozenset({_S.UPLOADED, _S.APPLIED, _S.GATED, _S.REDISTILLED})
"""The next step is a job or a decision of the cloud's own."""


def check_transition(now: State, following: State) -> None:
    """Raises WrongState when the table does not allow it."""
    if following not in NEXT[now]:
        raise WrongState(f"a cycle that is {now} cannot become {following}: ask for its state and go on from there")
