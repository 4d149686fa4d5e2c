"""Trying again: bounded, jittered, and only where trying again can help (Unreachable)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from diredi.errors import Unreachable

T = TypeVar("T")


@dataclass
class Backoff:
    """Pauses that double from `first_s` to `longest_s`, each drawn between half of that and all of it."""

    first_s: float = 0.2
    longest_s: float = 5.0
    random: random.Random = field(default_factory=random.Random)
    failures: int = 0

    def next_s(self) -> float:
        """How long to pause after one more failure."""
        full: float = min(self.longest_s, self.first_s * 2 ** min(self.failures, 30))
        self.failures += 1
        return full * (0.5 + 0.5 * self.random.random())

    def reset(self) -> None:
        """Call after a success."""
        self.failures = 0


async def retry(operation: Callable[[], Awaitable[T]], *, attempts: int = 4, backoff: Backoff | None = None) -> T:
    """The result of `operation`, which must be idempotent; tried again after Unreachable only.

    Raises the last error.
    """
    backoff = backoff or Backoff()
    for _ in range(attempts - 1):
        try:
            return await operation()
        except Unreachable:
            await asyncio.sleep(backoff.next_s())
    return await operation()
