"""Notifications within this process: watchers wait for a topic and are woken when it has changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final


class Notifier:
    """One event for each topic, however many wait for it.

    A watcher reads `version` before it reads the state, and then waits for a newer version, so a change between the
    two is not missed. `notify` must be called on the event loop of the watchers.
    """

    def __init__(self) -> None:
        self._versions: Counter[str] = Counter()
        self._events: dict[str, asyncio.Event] = {}

    def version(self, topic: str) -> int:
        """Return how often the topic has changed."""
        return self._versions[topic]

    def notify(self, *topics: str) -> None:
        """Wake those who wait for one of the topics."""
        for topic in topics:
            self._versions[topic] += 1
            event = self._events.pop(topic, None)
            if event is not None:
                event.set()

    async def wait_for_change(self, topic: str, seen_version: int, timeout_s: float | None = None) -> bool:
        """Wait until a topic is newer than a version.

        Args:
            topic: What to wait for.
            seen_version: The version that the caller knows.
            timeout_s: How long to wait, in seconds; None: without an end.

        Returns:
            False where the time has passed first.
        """
        if self._versions[topic] != seen_version:
            return True
        event = self._events.setdefault(topic, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
        return True


RELEASES: Final = "releases"
"""Which releases there are, and who may have them; so the groups of sites, too."""
CLASSES: Final = "classes"
"""Which class names have ids."""
CYCLES: Final = "cycles"
"""The states of all cycles."""


def site_topic(site: str) -> str:
    """Return the topic of one site's tasks."""
    return f"site/{site}"


def cycle_topic(cycle_id: str) -> str:
    """Return the topic of one cycle, its progress included."""
    return f"cycle/{cycle_id}"
