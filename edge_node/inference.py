"""The inference loop: a thread that detects objects in frames, and how its results reach readers in the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass

import numpy as np
import structlog

from diredi.detectors.predictor import Detections, Image
from diredi.labels import LabelSpace
from edge_node.active_model import ActiveModel, RunningModel
from edge_node.camera import Camera, SourceState
from edge_node.sources import Frame
from edge_node.sources.view import view
from edge_node.telemetry import Telemetry

BACKLOG = 8
"""How many results a reader may be behind; the oldest ones beyond that are skipped."""


@dataclass(frozen=True)
class Result:
    """Hold one frame of the node's own cameras and what was detected in it."""

    number: int
    """Counts the frames of all cameras from 1 since the start."""
    camera: str
    captured_s: float
    """When the frame was taken, in seconds since 1970."""
    image: Image
    detections: Detections
    model: RunningModel


class InferenceLoop:
    """Detect on the newest frames of all cameras in turn, until all have ended or `stop` is called."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        active: ActiveModel,
        telemetry: Telemetry,
        on_result: Callable[[Result | None], None],
        *,
        confidence: float,
        stopped: threading.Event,
        changed: threading.Condition,
    ) -> None:
        """Make a loop; `start` starts it.

        Args:
            cameras: Where frames come from.
            active: The model that detects.
            telemetry: Counts the frames.
            on_result: Called with each result from the loop's thread, and with None when all cameras have ended.
            confidence: Detections below it are left out, unless a camera has another limit; 0 to 1.
            stopped: Set by `stop`.
            changed: What the cameras notify.
        """
        self.cameras = tuple(cameras)
        self._active = active
        self._telemetry = telemetry
        self._on_result = on_result
        self._confidence = confidence
        self._stopped = stopped
        self._changed = changed
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="inference", daemon=True)
        self._number = 0
        self.last_image: Image | None = None
        self._frame_error = ""

    @property
    def last_error(self) -> str:
        """What is wrong with each camera, or with the last frame; empty for nothing."""
        return "; ".join(camera.problem for camera in self.cameras if camera.problem) or self._frame_error

    def start(self) -> None:
        """Start the cameras and the thread that detects."""
        for camera in self.cameras:
            camera.start()
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Ask all threads to end and wait for them, but not for a camera that hangs: it ends with the process."""
        self._stopped.set()
        self._active.available.set()
        with self._changed:
            self._changed.notify_all()
        end = time.monotonic() + timeout_s
        for thread in (self._thread, *(camera.thread for camera in self.cameras)):
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while self._wait_for_frames():
            for camera in self.cameras:
                frame = camera.take()
                if frame is not None:
                    self._look_at(camera, frame)
        if not self._stopped.is_set():
            self._on_result(None)

    def _wait_for_frames(self) -> bool:
        """Wait until there is a model and a frame; return False once the loop is stopped or all cameras have ended."""
        while not self._active.available.wait(timeout=1.0):
            if self._stopped.is_set():
                break
        with self._changed:
            while not (self._stopped.is_set() or any(camera.has_frame for camera in self.cameras)):
                if all(camera.state is SourceState.ENDED for camera in self.cameras):
                    return False
                self._changed.wait(1.0)
        return not self._stopped.is_set()

    def _look_at(self, camera: Camera, frame: Frame) -> None:
        started, current = time.perf_counter(), self._active.current
        release = 0 if current is None else current.release.version
        try:
            image = view(frame.image, camera.settings)
            if not camera.gate.is_open(image, time.monotonic()):
                return
            model, detections = self._active.detect(image, camera.settings.confidence or self._confidence)
            detections = only(detections, model.release.labels, camera.settings.classes)
        except Exception as error:  # a frame on which every model fails must not end the loop; it is counted and logged
            self._telemetry.record_dropped(release)
            self._log_error(error)
            return
        names = [model.release.labels.names[class_id] for class_id in detections.classes]
        scores = detections.scores.tolist() if model.release.version == release else []
        self._telemetry.record_frame(time.perf_counter() - started, camera.name, names, release, scores)
        self._number += 1
        if self._number == 1:
            structlog.get_logger().info("detection_started", release=model.release.version)
        self.last_image = image
        captured_s = time.time() if frame.captured_s is None else frame.captured_s
        self._on_result(Result(self._number, camera.name, captured_s, image, detections, model))

    def _log_error(self, error: Exception) -> None:
        if str(error) != self._frame_error:
            structlog.get_logger().warning("frame_failed", error=str(error))
        self._frame_error = str(error)


def only(detections: Detections, labels: LabelSpace, names: Sequence[str]) -> Detections:
    """Return the detections of some classes.

    Args:
        detections: What a model has found.
        labels: The label space of that model.
        names: The classes to keep; none keeps all. Those that the model does not know are passed over.
    """
    if not names:
        return detections
    return detections.with_ids(np.array([i if name in names else -1 for i, name in enumerate(labels.names)]))


class Broadcast:
    """Give every reader the results in order. A slow reader skips the oldest ones and delays nobody."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make a broadcast for readers in this event loop."""
        self._loop = loop
        self._readers: set[asyncio.Queue[Result | None]] = set()
        self._ended = False
        self.skipped = 0
        """How many results readers have skipped because they were slow."""

    def publish(self, result: Result | None) -> None:
        """Deliver a result to all readers, from any thread; None says that there will be no more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, result)

    def _deliver(self, result: Result | None) -> None:
        self._ended = self._ended or result is None
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
                self.skipped += 1
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
