"""Which model runs: the one place that knows, and that changes it between two frames."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from diredi.detectors.predictor import Detections, Image, Predictor
from diredi.errors import WrongState
from edge_node.update_states import InstallableRelease


@dataclass(frozen=True)
class RunningModel:
    release: InstallableRelease
    predictor: Predictor


@dataclass(frozen=True)
class _Trial:
    """A model that has not found anything on a live frame yet, and what ran before it."""

    before: RunningModel | None
    on_outcome: Callable[[Exception | None], None]


class ActiveModel:
    """Threads ask it to detect; the updater swaps. A frame is detected by one model from beginning to end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: RunningModel | None = None
        self._trial: _Trial | None = None
        self.available = threading.Event()

    @property
    def current(self) -> RunningModel | None:
        return self._current

    def swap(self, new: RunningModel, on_outcome: Callable[[Exception | None], None] = lambda _: None) -> None:
        """From the next frame on, `new` detects. `on_outcome` hears, from whichever thread, how its first frame went;
        where that failed, the model before is in place again and has detected the very frame."""
        with self._lock:
            self._trial = _Trial(self._current, on_outcome)
            self._current = new
            self.available.set()

    def accept(self) -> None:
        """End the trial: no frame came by, and the warm-up must do."""
        with self._lock:
            self._trial = None

    def detect(self, image: Image, confidence: float) -> tuple[RunningModel, Detections]:
        """Raises WrongState when there is no model."""
        current = self._current
        if current is None:
            raise WrongState("no release is installed on this node yet: wait until the cloud has published one")
        try:
            detections = _first(current.predictor, image, confidence)
        except Exception as error:  # whatever a new model does wrong, the one before it detects this frame
            before = self._fall_back(current, error)
            if before is None:
                raise
            return before, _first(before.predictor, image, confidence)
        if self._trial is not None:
            self._prove(current)
        return current, detections

    def _prove(self, running: RunningModel) -> None:
        with self._lock:
            trial = self._trial if running is self._current else None
            if trial is not None:
                self._trial = None
        if trial is not None:
            trial.on_outcome(None)

    def _fall_back(self, failed: RunningModel, error: Exception) -> RunningModel | None:
        with self._lock:
            trial = self._trial
            if trial is None:
                # Another thread's frame may have failed first and put the model before back already.
                return self._current if self._current is not failed else None
            self._trial = None
            self._current = trial.before
            if trial.before is None:
                self.available.clear()
        trial.on_outcome(error)
        return trial.before


def _first(predictor: Predictor, image: Image, confidence: float) -> Detections:
    return predictor.predict([image], confidence)[0]
