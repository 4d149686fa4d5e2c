"""Counts frames and measures how fast they are detected."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 100


@dataclass(frozen=True)
class Rates:
    """Hold counts since the start, and the speed of the last frames."""

    frames: int
    dropped: int
    frames_per_second: float
    latency_ms: float


class Telemetry:
    """Collect measurements of the inference thread for readers in any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing.

        Args:
            clock: Returns seconds that never go back.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._frames = 0
        self._dropped = 0
        self._ends: deque[float] = deque(maxlen=WINDOW)
        self._latencies_s: deque[float] = deque(maxlen=WINDOW)

    def record_frame(self, latency_s: float) -> None:
        """Count a frame on which the model detected for so many seconds."""
        with self._lock:
            self._frames += 1
            self._ends.append(self._clock())
            self._latencies_s.append(latency_s)

    def record_dropped(self) -> None:
        """Count a frame on which no model could detect."""
        with self._lock:
            self._dropped += 1

    def rates(self) -> Rates:
        """Return frames per second over the last WINDOW frames, and the median latency of the same."""
        with self._lock:
            latency = statistics.median(self._latencies_s) * 1000 if self._latencies_s else 0.0
            span = self._clock() - self._ends[0] if self._ends else 0.0
            rate = (len(self._ends) - 1) / span if span > 0 and len(self._ends) > 1 else 0.0
            return Rates(self._frames, self._dropped, rate, latency)
