"""All neighbours of a round at once: whoever answers in time is heard, of everybody else there is a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from diredi.errors import CorruptData, DirediError, Unreachable
from diredi.rpc.retry import retrying
from peer_node.learner import PredictionRequest, Update
from peer_node.peer_client import PeerClient


class AbsenceKind(StrEnum):
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
    kind: AbsenceKind
    why: str
    """One sentence."""


@dataclass(frozen=True)
class Collected:
    """Every neighbour that was asked is in one of the two."""

    answers: dict[str, Update]
    missing: dict[str, Absence]


async def collect(
    clients: Mapping[str, PeerClient],
    round_: int,
    request: PredictionRequest | None,
    *,
    deadline_s: float,
    attempts: int,
) -> Collected:
    """Returns after `deadline_s` at the latest; connections that break are tried `attempts` times until then."""
    outcomes = await asyncio.gather(
        *(_fetch(client, round_, request, deadline_s, attempts) for client in clients.values())
    )
    collected = Collected({}, {})
    for name, outcome in zip(clients, outcomes, strict=True):
        if isinstance(outcome, Absence):
            collected.missing[name] = outcome
        else:
            collected.answers[name] = outcome
    return collected


async def _fetch(
    client: PeerClient, round_: int, request: PredictionRequest | None, deadline_s: float, attempts: int
) -> Update | Absence:
    # The deadline here is the one that counts; the call's own is for the other side and must not end it first.
    try:
        async with asyncio.timeout(deadline_s):
            return await retrying(lambda: client.fetch(round_, request, deadline_s + 5), attempts=attempts)
    except TimeoutError:
        return Absence(AbsenceKind.LATE, f"{client.identity} had not answered round {round_} after {deadline_s:g} s")
    except Unreachable as error:
        return Absence(AbsenceKind.AWAY, f"{client.identity} cannot be reached: {error}")
    except CorruptData as error:
        return Absence(AbsenceKind.WRONG, str(error))
    except DirediError as error:
        return Absence(AbsenceKind.REFUSED, str(error))
