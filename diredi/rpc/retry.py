"""Retries: bounded, with jitter, and only after errors that a retry can cure (Unreachable, RemoteFailure)."""

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
    """Pauses that double from first to last, each drawn between half of its length and all of it.

    Attributes:
        first_s: Length of the first pause in seconds.
        longest_s: Length that no pause exceeds, in seconds.
        random: Source of the jitter.
        failures: Failures since the last success.
    """

    first_s: float = 0.2
    longest_s: float = 5.0
    random: random.Random = field(default_factory=random.Random)
    failures: int = 0

    def next_s(self) -> float:
        """Count one more failure and return how many seconds to pause."""
        full: float = min(self.longest_s, self.first_s * 2 ** min(self.failures, 30))
        self.failures += 1
        return full * (0.5 + 0.5 * self.random.random())

    def reset(self) -> None:
        """Forget the failures; call it after a success."""
        self.failures = 0


async def retry(operation: Callable[[], Awaitable[T]], *, attempts: int = 4, backoff: Backoff | None = None) -> T:
    """Run an operation again while the other side is away or fails.

    Args:
        operation: What to run; it must be idempotent.
        attempts: How often to run it at most.
        backoff: Pauses between attempts.

    Returns:
        The result of the first attempt that succeeded.

    Raises:
        Unreachable: The last attempt failed, too.
    """
    backoff = backoff or Backoff()
    for _ in range(attempts - 1):
        try:
            return await operation()
        except Unreachable:
            await asyncio.sleep(backoff.next_s())
    return await operation()
