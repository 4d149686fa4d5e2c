"""What a peer has said of the public set, round by round: the only thing that its service can see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from diredi.errors import InvalidInput, NotFound
from diredi.trust.identity import Identity
from edge_node.peers.learner import Floats, Outline, Predictions


class Board:
    """In memory; belongs to the event loop's thread. Whoever waits is woken, nobody looks twice."""

    def __init__(self, outline: Outline, rounds: int, keep_rounds: int) -> None:
        self.outline = outline
        self.rounds = rounds
        self._keep = keep_rounds
        self._newest = 0
        self._said: dict[int, Predictions] = {}
        self._told: dict[Identity, int] = {}
        self._changed = asyncio.Event()

    @property
    def ready(self) -> list[int]:
        """Rounds whose predictions are here."""
        return sorted(self._said)

    def put(self, round_: int, predictions: Predictions) -> None:
        """Publishes a copy; of the oldest rounds, those beyond `keep_rounds` go.

        Raises InvalidInput for anything but sound predictions of every head on every sample of the public set.
        """
        self._check(round_, predictions)
        embeddings = predictions.embeddings
        self._said[round_] = Predictions(
            _frozen(predictions.probabilities), None if embeddings is None else _frozen(embeddings)
        )
        self._newest = max(self._newest, round_)
        for old in self.ready[: -self._keep]:
            del self._said[old]
        self._wake()

    async def said(self, round_: int) -> Predictions:
        """Waits for a round that is yet to come. Raises InvalidInput for one that never comes, NotFound if dropped."""
        if not 1 <= round_ <= self.rounds:
            raise InvalidInput(f"there is no round {round_} here: ask for 1 to {self.rounds}")
        await self._until(lambda: self._newest >= round_)
        if round_ not in self._said:
            raise NotFound(f"round {round_} is over and its predictions were dropped: ask for round {self._newest}")
        return self._said[round_]

    def note_told(self, round_: int, neighbour: Identity) -> None:
        """`neighbour` has had its answer about a round, whatever that was."""
        self._told[neighbour] = max(round_, self._told.get(neighbour, 0))
        self._wake()

    async def told(self, round_: int, neighbour: Identity) -> None:
        """Returns when it has had its answer about a round or a later one."""
        await self._until(lambda: self._told.get(neighbour, 0) >= round_)

    def _check(self, round_: int, predictions: Predictions) -> None:
        outline, embeddings = self.outline, predictions.embeddings
        shape = (outline.heads, outline.samples, outline.classes)
        if predictions.probabilities.shape != shape:
            flaw = f"probabilities of shape {predictions.probabilities.shape} where {shape} is promised"
        elif (None if embeddings is None else embeddings.shape) != (
            (outline.samples, outline.embedding) if outline.embedding else None
        ):
            flaw = (
                f"embeddings other than the promised {outline.embedding} numbers for each of {outline.samples} samples"
            )
        else:
            flaw = predictions.flaw()
        if flaw:
            raise InvalidInput(
                f"the learner's predictions of round {round_} have {flaw}: nothing of them was published"
            )

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _frozen(values: Floats) -> Floats:
    copy = np.array(values, dtype="<f4", order="C")
    copy.flags.writeable = False
    return copy
