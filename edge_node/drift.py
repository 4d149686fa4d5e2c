"""Notices without labels that a camera no longer sees what it used to see, or its release no longer finds it.

Each camera has a baseline of a few numbers, and from the second day on one for each hour of which enough frames were
seen. A change of light, a turned camera or a release that has begun to guess is far from the baseline in three windows
one after the other, which takes at most 200 frames.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from diredi.errors import DirediError
from diredi.store.files import atomic_write, read_state
from edge_node.inference import Broadcast, Result
from edge_node.thumbnail import CELLS, Thumbnail, thumbnail_of

BLOCK: Final = 40
"""So many frames are taken together; a window has two blocks."""
LEAST_WINDOWS: Final = 12
"""So many windows make a baseline; before, nothing is far from it."""
UNSURE: Final = 4.0
"""A baseline of so many windows counts as twice as wide as measured, one of ten times as many as a tenth wider."""
MEMORY: Final = 2000
"""A baseline has forgotten a window half when so many newer ones were seen."""
FAR: Final = 5.0
"""A window is far from the baseline when a signal is so many standard deviations away, ..."""
LASTING: Final = 3
"""... in so many windows, of which each begins half a window after the one before, ..."""
NEAR: Final = 3.0
"""... and near it again when none is further away than this."""
LEAST_BOXES: Final = 40
"""The confidence of fewer boxes in a window says nothing."""
SAVE_S: Final = 300.0


class DriftSignal(StrEnum):
    """Name what is measured of a window."""

    LIGHT = "light"
    """Mean level of grey."""
    CONTRAST = "contrast"
    """Standard deviation of the grey of cells."""
    COLOUR = "colour"
    """Mean difference between the strongest and the weakest colour of a cell."""
    SCENE = "scene"
    """1 - correlation of the picture with the mean one of the baseline."""
    BOXES = "boxes"
    """Logarithm of 1 + boxes in a frame."""
    CONFIDENCE = "confidence"
    """Mean confidence of boxes."""
    DOUBT = "doubt"
    """Share of boxes with a low confidence."""


FLOORS: Final[Mapping[DriftSignal, float]] = {
    DriftSignal.LIGHT: 10.0,
    DriftSignal.CONTRAST: 6.0,
    DriftSignal.COLOUR: 6.0,
    DriftSignal.SCENE: 0.04,
    DriftSignal.BOXES: 0.15,
    DriftSignal.CONFIDENCE: 0.04,
    DriftSignal.DOUBT: 0.08,
}
"""What no camera is steadier than: it counts beside the measured standard deviation."""
OF_RELEASE: Final = (DriftSignal.BOXES, DriftSignal.CONFIDENCE, DriftSignal.DOUBT)
"""These begin anew with each release."""

Values = dict[DriftSignal, float]


@dataclass(frozen=True)
class FrameSignals:
    """Hold what is measured of one frame."""

    thumbnail: Thumbnail
    boxes: int
    confidence: float
    """Sum over the boxes."""
    doubtful: int
    """How many boxes have a low confidence."""


@dataclass(frozen=True)
class Drift:
    """A change that lasts."""

    signal: DriftSignal
    """What has changed most."""
    was: float
    """Mean of the baseline."""
    is_now: float
    since_s: float
    """When the first window was far from the baseline, in seconds since 1970."""

    def text(self, camera: str) -> str:
        """Return it as a sentence."""
        return (
            f"camera {camera} has changed: {self.signal.value} is {self.is_now:.2f} and was {self.was:.2f}: "
            "look at its picture, and label some frames"
        )


class Statistic(BaseModel):
    """Mean and variance of windows, in which old ones count less and less."""

    n: int = Field(default=0, ge=0)
    mean: float = 0.0
    variance: float = Field(default=0.0, ge=0)

    def add(self, value: float) -> None:
        """Take in a window."""
        self.n = min(self.n + 1, MEMORY)
        away = value - self.mean
        self.mean += away / self.n
        self.variance += (away * (value - self.mean) - self.variance) / self.n


class HourBaseline(BaseModel):
    """What a camera is like in one hour of the day."""

    first_day: int
    """On which day it was seen first, as a proleptic ordinal; it counts from the next day on."""
    signals: dict[DriftSignal, Statistic] = {}


class Baseline(BaseModel):
    """What a camera is like."""

    release: str = ""
    """Of which release, in which form, its signals of detections are."""
    whole: dict[DriftSignal, Statistic] = {}
    hours: dict[int, HourBaseline] = {}
    """By hour of the day, 0 to 23 in local time."""
    picture: list[float] = []
    """Mean grey of each cell, less the mean of all and over their standard deviation."""
    pictures: int = Field(default=0, ge=0)

    def begin_release(self, release: str) -> None:
        """Forget what an earlier release, or another form of it, found."""
        self.release = release
        for known in (self.whole, *(hour.signals for hour in self.hours.values())):
            for signal in OF_RELEASE:
                known.pop(signal, None)

    def distances(self, values: Values, at: datetime) -> dict[DriftSignal, tuple[float, float]]:
        """Return how many standard deviations each signal is away, and from which mean; none that is not known."""
        found = {}
        hour = self.hours.get(at.hour)
        of_hours = hour.signals if hour is not None and hour.first_day < at.toordinal() else {}
        for signal, value in values.items():
            whole, of_hour = self.whole.get(signal), of_hours.get(signal)
            if whole is None or whole.n < LEAST_WINDOWS:
                continue
            near = of_hour if of_hour is not None and of_hour.n >= LEAST_WINDOWS else whole
            unsure = 1 + UNSURE / near.n  # few windows do not know how far a camera goes
            spread = unsure * math.sqrt(near.variance + FLOORS[signal] ** 2)
            found[signal] = abs(value - near.mean) / spread, near.mean
        return found

    def learn(self, values: Values, at: datetime, picture: NDArray[np.float32], *, hour_only: bool) -> None:
        """Take in a window; where it is far from the baseline, only an hour that is not known yet learns it."""
        of_hour = self.hours.setdefault(at.hour, HourBaseline(first_day=at.toordinal())).signals
        for signal, value in values.items():
            if not hour_only:
                self.whole.setdefault(signal, Statistic()).add(value)
            known = of_hour.setdefault(signal, Statistic())
            if not hour_only or known.n < LEAST_WINDOWS:
                known.add(value)
        if not hour_only:
            self.pictures = min(self.pictures + 1, MEMORY)
            old = np.array(self.picture or np.zeros_like(picture), np.float32)
            self.picture = (old + (picture - old) / self.pictures).tolist()


@dataclass
class _Block:
    """Sums over frames."""

    frames: int = 0
    thumbnail: Thumbnail = field(default_factory=lambda: np.zeros((CELLS * CELLS, 3), np.float32))
    boxes: int = 0
    confidence: float = 0.0
    doubtful: int = 0

    def add(self, one: FrameSignals) -> None:
        self.frames += 1
        self.thumbnail += one.thumbnail
        self.boxes += one.boxes
        self.confidence += one.confidence
        self.doubtful += one.doubtful


@dataclass
class CameraDrift:
    """Compare one camera with its baseline."""

    baseline: Baseline = field(default_factory=Baseline)
    drift: Drift | None = None
    """The change that lasts; None for none."""
    _block: _Block = field(default_factory=_Block)
    _last: deque[_Block] = field(default_factory=lambda: deque(maxlen=2))
    _far: int = 0
    """How many windows in a row were far from the baseline."""
    _far_since_s: float | None = None
    _waiting: deque[tuple[Values, datetime, NDArray[np.float32]]] = field(default_factory=deque)
    """Windows that the baseline has not learned yet."""

    def add(self, frame: FrameSignals, at_s: float, release: str) -> None:
        """Take in a frame.

        Args:
            frame: What is measured of it.
            at_s: When it was taken, in seconds since 1970.
            release: The release that detected, and in which form of the site's.
        """
        if release != self.baseline.release:
            self.baseline.begin_release(release)
            self._block, self._far, self._far_since_s = _Block(), 0, None
            self._last.clear()
            self._waiting.clear()
            if self.drift is not None and self.drift.signal in OF_RELEASE:
                self.drift = None
        self._block.add(frame)
        if self._block.frames < BLOCK:
            return
        self._last.append(self._block)
        self._block = _Block()
        if len(self._last) == 2:
            self._judge(at_s)

    def _judge(self, at_s: float) -> None:
        values, picture = self._values()
        at = datetime.fromtimestamp(at_s)
        distances = self.baseline.distances(values, at)
        signal = max(distances, key=lambda one: distances[one][0], default=None)
        distance, mean = distances[signal] if signal is not None else (0.0, 0.0)
        if signal is not None and distance > (NEAR if self.drift else FAR):
            self._far += 1
            self._far_since_s = self._far_since_s or at_s
            if self._far >= LASTING:
                self.drift = Drift(signal, round(mean, 3), round(values[signal], 3), self._far_since_s)
        else:
            self._far, self._far_since_s, self.drift = 0, None, None
        self._waiting.append((values, at, picture))
        is_far = self._far > 0
        while len(self._waiting) > (0 if is_far else 2):  # the last ones may be the beginning of a change
            self.baseline.learn(*self._waiting.popleft(), hour_only=is_far)

    def _values(self) -> tuple[Values, NDArray[np.float32]]:
        frames = sum(block.frames for block in self._last)
        boxes = sum(block.boxes for block in self._last)
        cells = np.sum([block.thumbnail for block in self._last], axis=0) / frames
        grey = cells.mean(axis=1)
        picture = ((grey - grey.mean()) / max(float(grey.std()), 1.0)).astype(np.float32)
        values = {
            DriftSignal.LIGHT: float(grey.mean()),
            DriftSignal.CONTRAST: float(grey.std()),
            DriftSignal.COLOUR: float((cells.max(axis=1) - cells.min(axis=1)).mean()),
            DriftSignal.BOXES: math.log1p(boxes / frames),
        }
        if self.baseline.pictures:
            usual = np.array(self.baseline.picture, np.float32)
            spread = max(float(usual.std()), 1e-3) * max(float(picture.std()), 1e-3)
            values[DriftSignal.SCENE] = 1 - float((usual * picture).mean()) / spread
        if boxes >= LEAST_BOXES:
            values[DriftSignal.CONFIDENCE] = sum(block.confidence for block in self._last) / boxes
            values[DriftSignal.DOUBT] = sum(block.doubtful for block in self._last) / boxes
        return values, picture


class _State(BaseModel):
    cameras: dict[str, Baseline] = {}


class DriftWatch:
    """Compare the cameras of a node with their baselines, which survive a restart."""

    def __init__(self, record: Path, *, doubtful_below: float) -> None:
        """Make it.

        Args:
            record: The file that remembers the baselines.
            doubtful_below: Boxes with a lower confidence are in doubt.
        """
        self._record = record
        self._doubtful_below = doubtful_below
        self._cameras: dict[str, CameraDrift] = {}
        self._saved_s = time.monotonic()
        self._log = structlog.get_logger()

    @property
    def drifts(self) -> dict[str, Drift]:
        """The changes that last, by camera."""
        return {name: camera.drift for name, camera in self._cameras.items() if camera.drift is not None}

    @property
    def problem(self) -> str:
        """What has changed, in a sentence for each camera; empty for nothing."""
        return "; ".join(drift.text(name) for name, drift in self.drifts.items())

    def start_from_disk(self) -> None:
        """Read the baselines of an earlier run."""
        state = read_state(self._record, _State.model_validate_json)
        for name, baseline in (state.cameras if state else {}).items():
            self._cameras[name] = CameraDrift(baseline)

    async def run(self, broadcast: Broadcast) -> None:
        """Look at all frames, until the source ends."""
        async for result in broadcast.results():
            self.look_at(result)
            if time.monotonic() - self._saved_s >= SAVE_S:
                await asyncio.to_thread(self._write, self._state())

    def look_at(self, result: Result) -> None:
        """Take in a frame and what was detected in it."""
        camera = self._cameras.setdefault(result.camera, CameraDrift())
        before = camera.drift
        model = result.model
        camera.add(self._signals(result), result.captured_s, f"{model.release.version} {model.overlay}")
        if camera.drift and not before:
            self._log.warning("drift_noticed", camera=result.camera, why=camera.drift.text(result.camera))
        elif before and not camera.drift:
            self._log.info("drift_ended", camera=result.camera, signal=before.signal.value)

    def save(self) -> None:
        """Write the baselines."""
        self._write(self._state())

    def _state(self) -> str:
        self._saved_s = time.monotonic()
        return _State(cameras={name: camera.baseline for name, camera in self._cameras.items()}).model_dump_json()

    def _write(self, state: str) -> None:
        try:
            atomic_write(self._record, state, durable=False)
        except DirediError as error:  # the node detects without this file
            self._log.warning("drift_baseline_not_saved", error=str(error))

    def _signals(self, result: Result) -> FrameSignals:
        scores = result.detections.scores
        return FrameSignals(
            thumbnail_of(result.image), len(scores), float(scores.sum()), int((scores < self._doubtful_below).sum())
        )
