"""The inference loop: a thread that detects objects in frames, and how its results reach readers in the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import structlog

from diredi.detectors.predictor import Detections, Image
from diredi.errors import DirediError, NotFound, Unreachable
from edge_node.active_model import ActiveModel, RunningModel
from edge_node.sources import Source
from edge_node.telemetry import Telemetry

REOPEN_S = 2.0
BACKLOG = 8
"""How many results a reader may be behind; the oldest ones beyond that are skipped."""


@dataclass(frozen=True)
class Result:
    """Hold one frame of the node's own source and what was detected in it; `number` counts from 1 since the start."""

    number: int
    image: Image
    detections: Detections
    model: RunningModel


class InferenceLoop:
    """Detect until the source ends or `stop` is called. A source that goes away is opened again."""

    def __init__(
        self,
        source: Source,
        reopen: Callable[[], Source],
        active: ActiveModel,
        telemetry: Telemetry,
        on_result: Callable[[Result | None], None],
        *,
        confidence: float,
        frames_per_second: float,
    ) -> None:
        """Make a loop; `start` starts it.

        Args:
            source: Where frames come from.
            reopen: Opens the source again after it went away.
            active: The model that detects.
            telemetry: Counts the frames.
            on_result: Called with each result from the loop's thread, and with None at the end of the source.
            confidence: Detections below it are left out; 0 to 1.
            frames_per_second: The most frames that are read in a second.
        """
        self._source: Source | None = source
        self._reopen = reopen
        self._active = active
        self._telemetry = telemetry
        self._on_result = on_result
        self._confidence = confidence
        self._interval_s = 1 / frames_per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._number = 0
        self.last_image: Image | None = None
        self.last_error = ""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Ask the thread to end and wait for it, but not for a camera that hangs: then it ends with the process."""
        self._stop.set()
        self._active.available.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        due = time.monotonic()
        while self._wait_until(due):
            due = max(due + self._interval_s, time.monotonic())
            try:
                image = self._read()
            except DirediError as error:
                self._log_error(error)
                self._stop.wait(REOPEN_S if self._source is None else 0)
                continue
            if image is None:
                break
            self._detect(image)
        if self._source is not None:
            self._source.close()
        if not self._stop.is_set():
            structlog.get_logger().info("source_ended", frames=self._number)
            self._on_result(None)

    def _wait_until(self, due: float) -> bool:
        """Wait until a frame is due and there is a model; return False once the loop is stopped."""
        self._stop.wait(max(0.0, due - time.monotonic()))
        while not self._active.available.wait(timeout=1.0):
            if self._stop.is_set():
                break
        return not self._stop.is_set()

    def _read(self) -> Image | None:
        """Read a frame; None at the end of the source. A source that is away is closed before its error is raised."""
        if self._source is None:
            self._source = self._reopen()
        try:
            return self._source.read()
        except DirediError as error:
            if isinstance(error, Unreachable | NotFound):
                self._source.close()
                self._source = None
            raise

    def _detect(self, image: Image) -> None:
        started = time.perf_counter()
        try:
            model, detections = self._active.detect(image, self._confidence)
        except Exception as error:  # a frame on which every model fails must not end the loop; it is counted and logged
            self._telemetry.record_dropped()
            self._log_error(error)
            return
        self._telemetry.record_frame(time.perf_counter() - started)
        self._number += 1
        if self._number == 1:
            structlog.get_logger().info("detection_started", release=model.release.version)
        self.last_image = image
        self._on_result(Result(self._number, image, detections, model))

    def _log_error(self, error: Exception) -> None:
        if str(error) != self.last_error:
            structlog.get_logger().warning("frame_failed", error=str(error))
        self.last_error = str(error)


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
