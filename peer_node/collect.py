"""All neighbours of a round at once: whoever answers in time is heard, of everybody else there is a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from diredi.errors import CorruptData, DirediError, Unreachable
from diredi.rpc.retry import retrying
from peer_node.learner import Question, Said
from peer_node.peer_client import Neighbour


class Kind(StrEnum):
    """Why a neighbour was not heard."""

    LATE = "late"
    """It did not answer in time."""
    AWAY = "away"
    """There was no connection, or it broke."""
    WRONG = "wrong"
    """It answered what cannot be."""
    REFUSED = "refused"
    """It said no."""


@dataclass(frozen=True)
class Absence:
    kind: Kind
    why: str
    """One sentence."""


@dataclass(frozen=True)
class Gathered:
    """Every neighbour that was asked is in one of the two."""

    answers: dict[str, Said]
    missing: dict[str, Absence]


async def gather(
    neighbours: Mapping[str, Neighbour], round_: int, question: Question | None, *, deadline_s: float, attempts: int
) -> Gathered:
    """Returns after `deadline_s` at the latest; connections that break are tried `attempts` times until then."""
    outcomes = await asyncio.gather(
        *(_asked(neighbour, round_, question, deadline_s, attempts) for neighbour in neighbours.values())
    )
    gathered = Gathered({}, {})
    for name, outcome in zip(neighbours, outcomes, strict=True):
        if isinstance(outcome, Absence):
            gathered.missing[name] = outcome
        else:
            gathered.answers[name] = outcome
    return gathered


async def _asked(
    neighbour: Neighbour, round_: int, question: Question | None, deadline_s: float, attempts: int
) -> Said | Absence:
    # The deadline here is the one that counts; the call's own is for the other side and must not end it first.
    try:
        async with asyncio.timeout(deadline_s):
            return await retrying(lambda: neighbour.answer(round_, question, deadline_s + 5), attempts=attempts)
    except TimeoutError:
        return Absence(Kind.LATE, f"{neighbour.identity} had not answered round {round_} after {deadline_s:g} s")
    except Unreachable as error:
        return Absence(Kind.AWAY, f"{neighbour.identity} cannot be reached: {error}")
    except CorruptData as error:
        return Absence(Kind.WRONG, str(error))
    except DirediError as error:
        return Absence(Kind.REFUSED, str(error))
