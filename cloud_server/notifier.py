"""Wakes the watchers in this process when something they watch has changed; holds no state worth keeping."""

from __future__ import annotations

import asyncio
from collections import Counter


class Notifier:
    """One event a topic, whoever waits for it: a watcher costs a task and no thread.

    Read `version` before the state, then wait for a newer one: a change between the two is never missed.
    `notify` belongs to the event loop that the watchers run on.
    """

    def __init__(self) -> None:
        self._versions: Counter[str] = Counter()
        self._events: dict[str, asyncio.Event] = {}

    def version(self, topic: str) -> int:
        return self._versions[topic]

    def notify(self, *topics: str) -> None:
        """Says that the topics changed."""
        for topic in topics:
            self._versions[topic] += 1
            event = self._events.pop(topic, None)
            if event is not None:
                event.set()

    async def wait_for_change(self, topic: str, seen_version: int, timeout_s: float | None = None) -> bool:
        """Waits until the topic is newer than `seen_version`; False when `timeout_s` passed first."""
        if self._versions[topic] != seen_version:
            return True
        event = self._events.setdefault(topic, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
        return True


RELEASES = "releases"
CYCLES = "cycles"


def site_topic(site: str) -> str:
    """Tasks of one site."""
    return f"site/{site}"


def cycle_topic(cycle_id: str) -> str:
    return f"cycle/{cycle_id}"
