"""What all services of the cloud share, and the one way in which they change something.

`CloudContext.write` opens a transaction, runs an action in it and wakes those who wait for what the action changed.
`CloudContext.write_for_site` first checks that the caller may act on the cycle. Nothing else in the cloud opens a
writing transaction or wakes anybody.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

from cloud_server import authorization
from cloud_server.ledger import Ledger, Past, read_past
from cloud_server.notifier import CLASSES, RELEASES, Notifier, site_topic
from cloud_server.quotas import Quotas
from cloud_server.store import Repository
from cloud_server.store.database import Database
from diredi.trust.identity import Identity

KEEP_ALIVE_S: Final = 15.0
"""The contract: a stream is never silent for longer."""

_Result = TypeVar("_Result")


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


@dataclass
class CloudContext:
    """The shared database, clock, notifier and list of open streams."""

    database: Database
    notifier: Notifier = field(default_factory=Notifier)
    now: Callable[[], datetime] = utc_now
    keep_alive_s: float = KEEP_ALIVE_S
    quotas: Quotas = field(default_factory=Quotas)
    open_streams: Counter[str] = field(default_factory=Counter)
    """Number of open streams by caller ("site/NAME" or "device/SITE/NAME"). It is not stored: after a restart there are
    none."""
    deny_list: int = 0
    """Number of the newest deny list, of which open streams are told."""
    ledger: Ledger | None = None
    """Where numbers that were given out are also written."""

    def announce_deny_list(self, number: int) -> None:
        """Tell all open streams of sites and devices that there is a newer deny list."""
        if number != self.deny_list:
            self.deny_list = number
            sites = (caller.removeprefix("site/") for caller in self.open_streams if caller.startswith("site/"))
            self.notifier.notify(RELEASES, *map(site_topic, sites))

    async def read(self, query: Callable[[Repository], _Result]) -> _Result:
        """Run `query` in a transaction that only reads, and return its result."""
        return await self.database.read(query)

    async def read_for_person(self, actor: Identity, query: Callable[[Repository], _Result]) -> _Result:
        """Answer the question of a person, who may look at everything: check the role, then `read`.

        Raises:
            Refused: The caller is not a viewer, operator or admin.
        """
        authorization.require_viewer(actor)
        return await self.read(query)

    async def write(self, action: Callable[[Repository, datetime], _Result]) -> _Result:
        """Run an action in one transaction, then wake those who wait for what it changed.

        Args:
            action: Called with the repository and the current time. It may be called again after a conflict with
                another transaction, so it changes nothing but the repository.

        Returns:
            What the action returned.
        """
        now = self.now()

        def act(r: Repository) -> tuple[_Result, set[str], Past | None]:
            result = action(r, now)
            return result, r.changed_topics, read_past(r) if r.changed_topics & {RELEASES, CLASSES} else None

        result, topics, past = await self.database.write(act)
        if self.ledger is not None and past is not None:
            await asyncio.to_thread(self.ledger.record, past)
        self.notifier.notify(*topics)
        return result

    async def write_for_site(
        self,
        actor: Identity,
        cycle_id: str,
        action: Callable[[Repository, datetime], _Result],
        *,
        external: bool = False,
    ) -> _Result:
        """Let a site act on a cycle that it takes part in: check its role, then `write`.

        Args:
            actor: The caller.
            cycle_id: The cycle.
            action: What `write` runs.
            external: Let a site act that takes no part and was asked about the candidate, and no other.

        Raises:
            NotFound: There is no such cycle, or the caller is outside of its scope.
            Refused: The caller is not a site of the cycle.
        """
        authorization.require_viewer_or_site(actor)

        def act(r: Repository, now: datetime) -> _Result:
            cycle = r.cycles.get(cycle_id, r.visible_to(actor))
            authorization.require_member_site(actor, cycle.external if external else cycle.sites)
            return action(r, now)

        return await self.write(act)

    @contextmanager
    def track_stream(self, caller: str) -> Iterator[None]:
        """Count a stream of `caller` in `open_streams` while the block runs."""
        self.open_streams[caller] += 1
        try:
            yield
        finally:
            self.open_streams[caller] -= 1
            if not self.open_streams[caller]:
                del self.open_streams[caller]
