"""Collects the updates of a round from all neighbours at once, within a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from diredi.errors import CorruptData, DirediError, Unreachable
from diredi.rpc.retry import retry
from peer_node.learner import PredictionRequest, Update
from peer_node.peer_client import PeerClient


class AbsenceKind(StrEnum):
    """Why there is no update of a neighbour."""

    LATE = "late"
    """It did not answer in time."""
    AWAY = "away"
    """There was no connection, or it broke."""
    WRONG = "wrong"
    """Its answer was not valid."""
    REFUSED = "refused"
    """It answered with an error."""


@dataclass(frozen=True)
class Absence:
    """Say why a neighbour is missing in a round."""

    kind: AbsenceKind
    why: str
    """One sentence."""


@dataclass(frozen=True)
class Collected:
    """Hold the outcome of a round by neighbour; everybody who was asked is in one of the two."""

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
    """Ask all neighbours for their update of a round.

    Args:
        clients: Name of a neighbour to its client.
        round_: Number of the round, from 1.
        request: The predictions to ask for; None for weights.
        deadline_s: Seconds after which it returns at the latest.
        attempts: How often a neighbour is asked while connections to it break.
    """
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
            return await retry(lambda: client.fetch(round_, request, deadline_s + 5), attempts=attempts)
    except TimeoutError:
        return Absence(AbsenceKind.LATE, f"{client.identity} had not answered round {round_} after {deadline_s:g} s")
    except Unreachable as error:
        return Absence(AbsenceKind.AWAY, f"{client.identity} cannot be reached: {error}")
    except CorruptData as error:
        return Absence(AbsenceKind.WRONG, str(error))
    except DirediError as error:
        return Absence(AbsenceKind.REFUSED, str(error))
