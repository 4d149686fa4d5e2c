"""The store of a peer's published updates by round: the only thing that its service can read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from diredi.errors import InvalidInput, NotFound
from diredi.trust.identity import Identity
from peer_node.learner import PayloadSpec, Update, UpdateSnapshot


class RoundStore:
    """Keep the updates of the last rounds in memory.

    It belongs to the event loop's thread. Waiters are notified through an asyncio.Event; there is no polling.
    """

    def __init__(self, spec: PayloadSpec, rounds: int, keep_rounds: int) -> None:
        """Make an empty store.

        Args:
            spec: What every update of this peer looks like.
            rounds: Number of rounds that there will be.
            keep_rounds: Number of newest rounds that are kept.
        """
        self.payload_spec = spec
        self.rounds = rounds
        self._keep = keep_rounds
        self._newest = 0
        self._updates: dict[int, UpdateSnapshot] = {}
        self._served: dict[Identity, int] = {}
        self._changed = asyncio.Event()

    @property
    def ready(self) -> list[int]:
        """The rounds whose update is here, in order."""
        return sorted(self._updates)

    def validate(self, round_: int, update: Update) -> UpdateSnapshot:
        """Check an update and return a copy that can be published.

        It may run in another thread, because large weights take a while.

        Raises:
            InvalidInput: The update is not what the payload spec promises.
        """
        if problem := self.payload_spec.validation_error(update):
            raise InvalidInput(f"the learner's update of round {round_} has {problem}: nothing of it was published")
        return update.snapshot()

    def put(self, round_: int, update: Update) -> None:
        """Check an update and publish a copy of it. Raises what `validate` raises."""
        self.publish(round_, self.validate(round_, update))

    def publish(self, round_: int, snapshot: UpdateSnapshot) -> None:
        """Publish what `validate` returned, and drop the oldest rounds beyond `keep_rounds`."""
        self._updates[round_] = snapshot
        self._newest = max(self._newest, round_)
        for old in self.ready[: -self._keep]:
            del self._updates[old]
        self._notify()

    async def get(self, round_: int) -> UpdateSnapshot:
        """Return the update of a round, and wait for a round that is yet to come.

        Raises:
            InvalidInput: There is never such a round.
            NotFound: Its update was dropped.
        """
        if not 1 <= round_ <= self.rounds:
            raise InvalidInput(f"there is no round {round_} here: ask for 1 to {self.rounds}")
        await self._wait_until(lambda: self._newest >= round_)
        if round_ not in self._updates:
            raise NotFound(f"round {round_} is over and its update was dropped: ask for round {self._newest}")
        return self._updates[round_]

    def mark_served(self, round_: int, neighbour: Identity) -> None:
        """Record that a neighbour's call about a round was answered, even if with an error."""
        self._served[neighbour] = max(round_, self._served.get(neighbour, 0))
        self._notify()

    async def wait_until_served(self, round_: int, neighbour: Identity) -> None:
        """Wait until a neighbour's call about this round, or a later one, was answered."""
        await self._wait_until(lambda: self._served.get(neighbour, 0) >= round_)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
