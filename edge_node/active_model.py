"""Holds the model that detects, and changes it between two frames; a new one is tested before."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from diredi.detectors.predictor import Detections, Image, Predictor
from diredi.detectors.runtimes import REFERENCE
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput, WrongState
from edge_node.update_states import InstallableRelease

WARM_UP_PASSES = 2
FAILURES_IN_A_ROW = 3
"""After so many frames on which a model fails, one after the other, the one before it is put back."""


class LoadedModel(Predictor, Protocol):
    """Predict, and say which detector this is."""

    spec: DetectorSpec


def warm_up(model: Predictor, frame: Image | None) -> None:
    """Let a model detect beside the one that runs.

    Args:
        model: The new model.
        frame: The last live frame; None for a grey one.

    Raises:
        InvalidInput: The model fails, or finds what cannot be.
    """
    image = np.full((480, 640, 3), 114, np.uint8) if frame is None else frame
    try:
        for _ in range(WARM_UP_PASSES):
            detections = model.predict([image], 0.001)[0]
    except Exception as error:  # nothing that a foreign model does may end the updater
        raise InvalidInput(f"the model fails on a frame ({type(error).__name__}: {error}): export it again") from error
    if not (np.isfinite(detections.boxes).all() and np.isfinite(detections.scores).all()):
        raise InvalidInput("the model finds boxes that are not numbers: export it again")
    if len(detections) and not 0 <= int(detections.classes.min()) <= int(detections.classes.max()) < len(model.labels):
        raise InvalidInput("the model finds classes that it has no name for: export it again")


@dataclass(frozen=True)
class ModelFile:
    """Name a file on disk, and what its bytes must be."""

    path: Path
    digest: str


@dataclass(frozen=True)
class RunningModel:
    """Hold a loaded model and the release that it belongs to."""

    release: InstallableRelease
    predictor: Predictor
    overlay: str = ""
    """Digest of the site's overlay over the release; empty: the release alone."""
    file: ModelFile | None = None
    """What it was loaded from; None for one that is in memory only."""
    runtime: str = REFERENCE
    """What runs its network."""


@dataclass(frozen=True)
class _Trial:
    """A model that has not detected on a live frame yet, and the one before it."""

    previous: RunningModel | None
    on_outcome: Callable[[Exception | None], None]


class ActiveModel:
    """Detect with the current model, from any thread, while the updater may swap it.

    One model detects a frame from beginning to end. A new model is on trial until it has detected on one frame; if it
    fails there, the previous one is put back and detects that frame. Later the previous one stands by: it detects the
    frames on which the new one fails, and is put back after FAILURES_IN_A_ROW of them.
    """

    def __init__(self) -> None:
        """Begin without a model."""
        self.on_failing: Callable[[RunningModel, Exception], None] = lambda *_: None
        """Called from any thread with a release that fails on frame after frame; one that stood by is back then."""
        self.failures: Counter[int] = Counter()
        """By version, the frames on which a release has failed, also where another one has detected them."""
        self.failed_overlays: set[str] = set()
        """Overlays that have failed on frame after frame; the release detects without them."""
        self._standby: RunningModel | None = None
        self._failures = 0
        self._lock = threading.Lock()
        self._current: RunningModel | None = None
        self._trial: _Trial | None = None
        self.available = threading.Event()
        """Set while there is a model."""

    @property
    def current(self) -> RunningModel | None:
        """The model that detects now."""
        return self._current

    @property
    def failed_frames(self) -> int:
        """Frames on which the model of the time has failed since the start."""
        return self.failures.total()

    def swap(self, new: RunningModel, on_outcome: Callable[[Exception | None], None] = lambda _: None) -> None:
        """Let a new model detect from the next frame on.

        Args:
            new: The model, which is on trial.
            on_outcome: Called once, from whichever thread, with the error of the first frame, or None if that went
                well. After an error the previous model is in place again.
        """
        with self._lock:
            self._trial = _Trial(self._current, on_outcome)
            self._standby, self._failures = self._current, 0
            self._current = new
            self.available.set()

    def replace(
        self, old: RunningModel, new: RunningModel, on_outcome: Callable[[Exception | None], None] = lambda _: None
    ) -> bool:
        """Let another form of the release that runs detect from the next frame on, as `swap` does.

        Args:
            old: The model that is to be replaced.
            new: The model, which is on trial.
            on_outcome: As for `swap`; not called where another release is swapped in meanwhile.

        Returns:
            False, and nothing is changed, where another model detects by now or one is on trial.
        """
        with self._lock:
            if self._current is not old or self._trial is not None:
                return False
            self._trial = _Trial(old, on_outcome)
            self._standby, self._failures = old, 0
            self._current = new
            return True

    def accept(self) -> None:
        """End the trial without a frame."""
        with self._lock:
            self._trial = None

    def detect(self, image: Image, confidence: float) -> tuple[RunningModel, Detections]:
        """Detect objects in one image.

        Args:
            image: uint8, [height, width, 3], BGR.
            confidence: Detections below it are left out; 0 to 1.

        Returns:
            The model that detected, and what it found.

        Raises:
            WrongState: There is no model yet.
        """
        current = self._current
        if current is None:
            raise WrongState("no release is installed on this node yet: wait until the cloud has published one")
        try:
            detections = current.predictor.predict([image], confidence)[0]
        except Exception as error:  # whatever a new model does wrong, the previous one detects this frame
            previous = self._find_stand_in(current, error)
            if previous is None:
                raise
            return previous, previous.predictor.predict([image], confidence)[0]
        if self._trial is not None:
            self._end_trial(current)
        if self._failures:
            self._failures = 0
        return current, detections

    def _end_trial(self, model: RunningModel) -> None:
        with self._lock:
            trial = self._trial if model is self._current else None
            if trial is not None:
                self._trial = None
        if trial is not None:
            trial.on_outcome(None)

    def _find_stand_in(self, failed: RunningModel, error: Exception) -> RunningModel | None:
        """Return the model that detects a frame on which another one has failed; None where there is none."""
        with self._lock:
            self.failures[failed.release.version] += 1
            trial = self._trial
            if self._current is not failed:  # another thread's frame has failed first, and the previous one is back
                return self._current
            if trial is None:
                return self._count_failure(failed, error)
            self._trial = self._standby = None
            self._current = trial.previous
            if trial.previous is None:
                self.available.clear()
        trial.on_outcome(error)
        return trial.previous

    def _count_failure(self, failed: RunningModel, error: Exception) -> RunningModel | None:
        standby = self._standby
        self._failures += 1
        if self._failures == FAILURES_IN_A_ROW:
            self._failures = 0
            if standby is not None:
                self._current, self._standby = standby, None
            if failed.runtime != REFERENCE:  # the same file runs on, with the runtime that the gate measured with
                return standby
            if failed.overlay:
                self.failed_overlays.add(failed.overlay)
            else:
                self.on_failing(failed, error)
        return standby
