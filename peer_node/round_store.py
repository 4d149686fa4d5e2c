"""What a peer has said, round by round: the only thing that its service can see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from diredi.errors import InvalidInput, NotFound
from diredi.trust.identity import Identity
from peer_node.learner import PayloadSpec, Update, UpdateSnapshot


class RoundStore:
    """In memory; belongs to the event loop's thread. Whoever waits is woken, nobody looks twice."""

    def __init__(self, spec: PayloadSpec, rounds: int, keep_rounds: int) -> None:
        self.payload_spec = spec
        self.rounds = rounds
        self._keep = keep_rounds
        self._newest = 0
        self._said: dict[int, UpdateSnapshot] = {}
        self._told: dict[Identity, int] = {}
        self._changed = asyncio.Event()

    @property
    def ready(self) -> list[int]:
        """Rounds of which something is here."""
        return sorted(self._said)

    def validate(self, round_: int, said: Update) -> UpdateSnapshot:
        """A copy that can be published; may be asked for in another thread, for large weights take a while.

        Raises InvalidInput for anything but what the spec promises.
        """
        if flaw := self.payload_spec.validation_error(said):
            raise InvalidInput(f"what the learner says in round {round_} has {flaw}: nothing of it was published")
        return said.snapshot()

    def put(self, round_: int, said: Update) -> None:
        """Checks and publishes a copy."""
        self.publish(round_, self.validate(round_, said))

    def publish(self, round_: int, checked: UpdateSnapshot) -> None:
        """What was checked before; of the oldest rounds, those beyond `keep_rounds` go."""
        self._said[round_] = checked
        self._newest = max(self._newest, round_)
        for old in self.ready[: -self._keep]:
            del self._said[old]
        self._wake()

    async def get(self, round_: int) -> UpdateSnapshot:
        """Waits for a round that is yet to come. Raises InvalidInput for one that never comes, NotFound if dropped."""
        if not 1 <= round_ <= self.rounds:
            raise InvalidInput(f"there is no round {round_} here: ask for 1 to {self.rounds}")
        await self._until(lambda: self._newest >= round_)
        if round_ not in self._said:
            raise NotFound(f"round {round_} is over and what was said was dropped: ask for round {self._newest}")
        return self._said[round_]

    def mark_served(self, round_: int, neighbour: Identity) -> None:
        """`neighbour` has had its answer about a round, whatever that was."""
        self._told[neighbour] = max(round_, self._told.get(neighbour, 0))
        self._wake()

    async def wait_until_served(self, round_: int, neighbour: Identity) -> None:
        """Returns when it has had its answer about a round or a later one."""
        await self._until(lambda: self._told.get(neighbour, 0) >= round_)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
