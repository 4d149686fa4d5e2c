"""A camera of the node: a thread that reads one source, opens it again whenever it is away, and says what is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from contextvars import copy_context
from enum import Enum

import structlog

from diredi.errors import DatasetError, DirediError, NotFound, Refused, Unreachable
from diredi.rpc.retry import Backoff
from edge_node.sources import Frame, Source, SourceSettings, redacted
from edge_node.sources.view import MotionGate

REFUSED_PAUSE = 10
"""How much longer than usual a camera is left alone that refuses the password: many lock out who tries too often."""


class SourceState(Enum):
    """How a source is."""

    OPENING = "opening"
    OK = "ok"
    AWAY = "away"
    REFUSED = "refused"
    UNREADABLE = "unreadable"
    ENDED = "ended"


class Camera:
    """Hold the newest frame of a source."""

    def __init__(
        self,
        name: str,
        open_: Callable[[], Source],
        settings: SourceSettings,
        *,
        frames_per_second: float,
        pauses: Backoff,
        stopped: threading.Event,
        changed: threading.Condition,
    ) -> None:
        """Make a camera; `start` starts it.

        Args:
            name: What it is called.
            open_: Opens the source.
            settings: What the source's reference says behind its `#` signs.
            frames_per_second: The most frames that are offered in a second.
            pauses: How long to wait before the source is opened again.
            stopped: Set when the node ends.
            changed: Notified when there is a frame, and when the source has ended.
        """
        self.name = name
        self.settings = settings
        self.gate = MotionGate(settings.motion)
        self._state = SourceState.OPENING
        self._problem = ""
        self._bad_frame = ""
        self._is_live = False
        self._last_frame_s = time.monotonic()
        self._open = open_
        self._interval_s = 1 / frames_per_second
        self._pauses = pauses
        self._stopped = stopped
        self._changed = changed
        self._frame: Frame | None = None
        self._due_s = time.monotonic()
        self._log = structlog.get_logger().bind(camera=name)
        # In a copy of the context, so that the thread's log lines name the service as those of others do.
        self.thread = threading.Thread(target=copy_context().run, args=(self._run,), name=f"camera-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    @property
    def state(self) -> SourceState:
        """How the source is. A live one that gives no frames for too long is away, though its connection may stand."""
        return SourceState.AWAY if self._hangs else self._state

    @property
    def problem(self) -> str:
        """What is wrong with the source, in a sentence; empty for nothing."""
        if self._hangs:
            silent_s = time.monotonic() - self._last_frame_s
            return f"camera {self.name} has given no frame for {silent_s:.0f} s, and no error: check it and its driver"
        return self._problem

    @property
    def _hangs(self) -> bool:
        """Whether the source does not come back with a frame or an error; its own time-out is over by then."""
        silent_s = time.monotonic() - self._last_frame_s
        return self._state is SourceState.OK and self._is_live and silent_s > 2 * self.settings.timeout

    @property
    def has_frame(self) -> bool:
        """Whether there is a frame that nobody has taken."""
        return self._frame is not None

    def take(self) -> Frame | None:
        """Take the newest frame; None where nobody has taken one since."""
        with self._changed:
            frame, self._frame = self._frame, None
            if frame is not None:
                self._due_s = max(self._due_s + self._interval_s, time.monotonic())
                self._changed.notify_all()
            return frame

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with closing(self._open()) as source:
                    self._read(source)
                break
            except Exception as error:  # whatever a source does, and it may be foreign code, the node goes on
                self._fail(error)
                pause_s = self._pauses.next_s() * (REFUSED_PAUSE if self._state is SourceState.REFUSED else 1)
                self._stopped.wait(pause_s)
        if not self._stopped.is_set():
            self._log.info("source_ended")
            with self._changed:
                self._state = SourceState.ENDED
                self._changed.notify_all()

    def _read(self, source: Source) -> None:
        """Offer frames until the source ends."""
        self._is_live = source.live
        while not self._stopped.is_set():
            if not source.live:
                self._wait_until_wanted()
            try:
                frame = source.read()
            except DatasetError as error:
                self._skip(error)
                self._due_s = max(self._due_s + self._interval_s, time.monotonic())
                continue
            if frame is None:
                return
            self._succeed()
            if not source.live or time.monotonic() >= self._due_s:
                self._offer(frame)

    def _wait_until_wanted(self) -> None:
        """Wait until the last frame was taken and the next one is due."""
        with self._changed:
            while self._frame is not None and not self._stopped.is_set():
                self._changed.wait(1.0)
        self._stopped.wait(max(0.0, self._due_s - time.monotonic()))

    def _offer(self, frame: Frame) -> None:
        with self._changed:
            self._frame = frame
            self._changed.notify_all()

    def _succeed(self) -> None:
        self._last_frame_s = time.monotonic()
        if self._state is not SourceState.OK:
            self._log.info("source_opened")
        self._state, self._problem = SourceState.OK, ""
        self._pauses.reset()

    def _skip(self, error: DatasetError) -> None:
        """Note a frame that cannot be decoded. The next one may be better; without any for long, the source is bad."""
        if self._state is not SourceState.OK or time.monotonic() - self._last_frame_s > self.settings.timeout:
            self._fail(error)
        elif str(error) != self._bad_frame:
            self._log.warning("frame_failed", error=str(error))
        self._bad_frame = str(error)

    def _fail(self, error: Exception) -> None:
        said = str(error) if isinstance(error, DirediError) else f"the source failed ({type(error).__name__}: {error})"
        problem = redacted(said)
        if problem != self._problem:
            self._log.warning("source_failed", error=problem)
        self._state, self._problem = state_after(error), problem


def state_after(error: Exception) -> SourceState:
    """Return the state of a source that has raised an error."""
    match error:
        case Refused():
            return SourceState.REFUSED
        case Unreachable() | NotFound():
            return SourceState.AWAY
        case _:
            return SourceState.UNREADABLE
