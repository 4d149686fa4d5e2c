"""What a peer has said, round by round: the only thing that its service can see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from diredi.errors import InvalidInput, NotFound
from diredi.trust.identity import Identity
from peer_node.learner import Outline, Published, Said, WeightsOutline


class Board:
    """In memory; belongs to the event loop's thread. Whoever waits is woken, nobody looks twice."""

    def __init__(self, outline: Outline | WeightsOutline, rounds: int, keep_rounds: int) -> None:
        self.outline = outline
        self.rounds = rounds
        self._keep = keep_rounds
        self._newest = 0
        self._said: dict[int, Published] = {}
        self._told: dict[Identity, int] = {}
        self._changed = asyncio.Event()

    @property
    def ready(self) -> list[int]:
        """Rounds of which something is here."""
        return sorted(self._said)

    def checked(self, round_: int, said: Said) -> Published:
        """A copy that can be published; may be asked for in another thread, for large weights take a while.

        Raises InvalidInput for anything but what the outline promises.
        """
        if flaw := self.outline.flaw(said):
            raise InvalidInput(f"what the learner says in round {round_} has {flaw}: nothing of it was published")
        return said.frozen()

    def put(self, round_: int, said: Said) -> None:
        """Checks and publishes a copy."""
        self.publish(round_, self.checked(round_, said))

    def publish(self, round_: int, checked: Published) -> None:
        """What was checked before; of the oldest rounds, those beyond `keep_rounds` go."""
        self._said[round_] = checked
        self._newest = max(self._newest, round_)
        for old in self.ready[: -self._keep]:
            del self._said[old]
        self._wake()

    async def said(self, round_: int) -> Published:
        """Waits for a round that is yet to come. Raises InvalidInput for one that never comes, NotFound if dropped."""
        if not 1 <= round_ <= self.rounds:
            raise InvalidInput(f"there is no round {round_} here: ask for 1 to {self.rounds}")
        await self._until(lambda: self._newest >= round_)
        if round_ not in self._said:
            raise NotFound(f"round {round_} is over and what was said was dropped: ask for round {self._newest}")
        return self._said[round_]

    def note_told(self, round_: int, neighbour: Identity) -> None:
        """`neighbour` has had its answer about a round, whatever that was."""
        self._told[neighbour] = max(round_, self._told.get(neighbour, 0))
        self._wake()

    async def told(self, round_: int, neighbour: Identity) -> None:
        """Returns when it has had its answer about a round or a later one."""
        await self._until(lambda: self._told.get(neighbour, 0) >= round_)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
