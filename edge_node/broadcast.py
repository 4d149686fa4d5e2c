"""Results of the inference thread, for whoever reads them in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from edge_node.inference import Result

BACKLOG = 8
"""Results that a reader may be behind before it skips."""


class Broadcast:
    """Every reader gets results in order; one that is slow skips the oldest, and holds nobody up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._readers: set[asyncio.Queue[Result | None]] = set()
        self._ended = False

    def publish(self, result: Result | None) -> None:
        """From any thread; None when there will be no more."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._deliver, result)

    def _deliver(self, result: Result | None) -> None:
        self._ended = self._ended or result is None
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(result)

    async def results(self) -> AsyncIterator[Result]:
        """From now on, until the source ends."""
        queue: asyncio.Queue[Result | None] = asyncio.Queue(maxsize=BACKLOG)
        self._readers.add(queue)
        try:
            while not self._ended or not queue.empty():
                result = await queue.get()
                if result is None:
                    return
                yield result
        finally:
            self._readers.discard(queue)
