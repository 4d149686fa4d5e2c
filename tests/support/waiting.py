"""Waiting for what another process or task will do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

PATIENCE_S = 180.0
"""Long after anybody would wait: what is bounded is a test that fails, never one on a slow machine."""


async def until(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = PATIENCE_S) -> None:
    """Looks until `condition` is true, while other tasks go on. Raises TimeoutError."""
    began = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while True:
            holds = condition()
            if await holds if isinstance(holds, Awaitable) else holds:
                return
            await asyncio.sleep(pause_s(began))


def pause_s(began: float) -> float:
    """How long to wait before the next look: the longer, the more time has passed since `began` (`time.monotonic`).

    A look costs a call over TLS, and takes the processor from what is waited for.
    """
    return min(max((time.monotonic() - began) / 20, 0.02), 0.25)


def eventually(what: str, holds: Callable[[], object], timeout_s: float = PATIENCE_S, every_s: float = 0.1) -> None:
    """Looks until `holds` is true. Raises AssertionError, which says `what` did not happen."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        pause.wait(every_s)
