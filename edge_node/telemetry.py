"""Counts frames and measures how fast they are detected."""

from __future__ import annotations

import bisect
import statistics
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

WINDOW = 100
LATENCY_BOUNDS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the latencies that are counted together."""
SCORES = 2000
"""The mean confidence is that of so many boxes, the newest ones."""


@dataclass(frozen=True)
class Rates:
    """Hold counts since the start, and the speed of the last frames."""

    frames: int
    dropped: int
    frames_per_second: float
    latency_ms: float


@dataclass(frozen=True)
class CameraCounts:
    """Hold what has been counted of a camera since the start."""

    latencies: tuple[int, ...]
    """How many frames took no longer than each of LATENCY_BOUNDS_S and longer than the one before; last, the rest."""
    latency_sum_s: float
    detections: dict[str, int]
    """Class name to number of boxes."""


@dataclass(frozen=True)
class ReleaseCounts:
    """Hold what has been counted of a release since the start, and the confidence of its newest boxes."""

    frames: int = 0
    """Those that it was to detect."""
    dropped: int = 0
    """Those of them on which no model could detect."""
    boxes: int = 0
    """How many boxes `confidence` is the mean of; at most SCORES."""
    confidence: float = 0.0


class _Release:
    def __init__(self) -> None:
        self.frames = self.dropped = 0
        self.scores: deque[float] = deque(maxlen=SCORES)


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
        self._by_bound: dict[str, list[int]] = {}
        self._sums_s: defaultdict[str, float] = defaultdict(float)
        self._detections: dict[str, Counter[str]] = {}
        self._releases: defaultdict[int, _Release] = defaultdict(_Release)

    def record_frame(
        self,
        latency_s: float,
        camera: str = "",
        names: Iterable[str] = (),
        release: int = 0,
        scores: Iterable[float] = (),
    ) -> None:
        """Count a frame.

        Args:
            latency_s: For how many seconds the model detected on it.
            camera: The camera that it is of.
            names: The class of each box.
            release: The version of the release that was to detect on it.
            scores: The confidence of each box; none where another model has detected.
        """
        with self._lock:
            self._releases[release].frames += 1
            self._releases[release].scores.extend(scores)
            by_bound = self._by_bound.setdefault(camera, [0] * (len(LATENCY_BOUNDS_S) + 1))
            by_bound[bisect.bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1
            self._sums_s[camera] += latency_s
            self._detections.setdefault(camera, Counter()).update(names)
            self._frames += 1
            self._ends.append(self._clock())
            self._latencies_s.append(latency_s)

    def record_dropped(self, release: int = 0) -> None:
        """Count a frame on which no model could detect, and not the release of this version either."""
        with self._lock:
            self._dropped += 1
            self._releases[release].frames += 1
            self._releases[release].dropped += 1

    def of_release(self, version: int) -> ReleaseCounts:
        """Return what has been counted of a release."""
        with self._lock:
            counts = self._releases.get(version)
            if counts is None:
                return ReleaseCounts()
            confidence = statistics.fmean(counts.scores) if counts.scores else 0.0
            return ReleaseCounts(counts.frames, counts.dropped, len(counts.scores), confidence)

    def by_camera(self) -> dict[str, CameraCounts]:
        """Return what has been counted of each camera that has given a frame."""
        with self._lock:
            return {
                camera: CameraCounts(tuple(counts), self._sums_s[camera], dict(self._detections[camera]))
                for camera, counts in self._by_bound.items()
            }

    def rates(self) -> Rates:
        """Return frames per second over the last WINDOW frames, and the median latency of the same."""
        with self._lock:
            latency = statistics.median(self._latencies_s) * 1000 if self._latencies_s else 0.0
            span = self._clock() - self._ends[0] if self._ends else 0.0
            rate = (len(self._ends) - 1) / span if span > 0 and len(self._ends) > 1 else 0.0
            return Rates(self._frames, self._dropped, rate, latency)
