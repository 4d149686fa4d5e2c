"""What every desk of the cloud shares: the database, the clock, who is connected, and whom to wake after a change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cloud_server.entities import Cycle
from cloud_server.notifier import CYCLES, RELEASES, Notifier, cycle_topic, site_topic
from cloud_server.states import State
from cloud_server.store.database import Database

KEEP_ALIVE_S: Final = 15.0
"""The contract: a stream is never silent for longer."""

_CHANGES_RELEASES: Final = frozenset({State.CANARY, State.RELEASED, State.ROLLED_BACK})


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class CloudContext:
    database: Database
    notifier: Notifier = field(default_factory=Notifier)
    now: Callable[[], datetime] = utc_now
    keep_alive_s: float = KEEP_ALIVE_S
    open_streams: Counter[str] = field(default_factory=Counter)
    """"site/NAME" or "device/SITE/NAME" to the number of streams that are open; in memory, as connections are."""

    @contextmanager
    def track_stream(self, who: str) -> Iterator[None]:
        """Counts a stream of `who` while it is open."""
        self.open_streams[who] += 1
        try:
            yield
        finally:
            self.open_streams[who] -= 1
            if not self.open_streams[who]:
                del self.open_streams[who]

    def moved(self, cycle: Cycle) -> Cycle:
        """Wakes whoever may have to act on the cycle's new state."""
        self.notifier.notify(cycle_topic(cycle.id), *(site_topic(site) for site in cycle.sites), CYCLES)
        if cycle.state in _CHANGES_RELEASES:
            self.notifier.notify(RELEASES)
        return cycle

    def progressed(self, cycle: Cycle) -> Cycle:
        """Wakes those who look on."""
        self.notifier.notify(cycle_topic(cycle.id))
        return cycle
