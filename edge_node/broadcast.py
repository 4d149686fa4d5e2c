"""Delivers the results of the inference thread to readers in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from edge_node.inference import Result

BACKLOG = 8
"""How many results a reader may be behind; the oldest ones beyond that are skipped."""


class Broadcast:
    """Give every reader the results in order. A slow reader skips the oldest ones and delays nobody."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make a broadcast for readers in this event loop."""
        self._loop = loop
        self._readers: set[asyncio.Queue[Result | None]] = set()
        self._ended = False

    def publish(self, result: Result | None) -> None:
        """Deliver a result to all readers, from any thread; None says that there will be no more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, result)

    def _deliver(self, result: Result | None) -> None:
        self._ended = self._ended or result is None
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(result)

    async def results(self) -> AsyncIterator[Result]:
        """Yield results from now on, until the source ends."""
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
