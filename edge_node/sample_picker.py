"""Picks the frames that are worth a label: few, in doubt, and unlike those that were picked before."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diredi.boxes import box_iou
from diredi.data.sample_reason import SampleReason
from diredi.detectors.predictor import Image
from edge_node.inference import Result
from edge_node.thumbnail import thumbnail_of

SURE: Final = 0.5
"""An object that was found with this confidence before and after a frame should have been found in it."""
LONGEST_S: Final = 2.0
"""Frames that are further apart than this say nothing about one between them."""
RARE_SHARE: Final = 0.02
"""A class is rare that was in a smaller share of a camera's frames, ..."""
RARE_FRAMES: Final = 200
"""... of at least so many."""
RARE_DOUBT: Final = 0.9
RANDOM_DOUBT: Final = 0.5
"""How much a rare class and a random frame count beside the entropy of detections."""

CHANGED_LEVELS: Final = 12
"""A cell has changed that is so many levels of 255 brighter or darker, beside the change of the whole frame."""
CHANGED_CELLS: Final = 3
"""Frames show the same if fewer cells than this have changed."""
REMEMBERED: Final = 256
"""So many of the last picks of each camera are compared with."""

_SLOW_IOU: Final = 0.5
_SAME_IOU: Final = 0.3


@dataclass(frozen=True)
class Pick:
    """A frame that is worth a label, and why."""

    result: Result
    reasons: tuple[SampleReason, ...]
    doubt: float
    """How much a label may teach, 0 to 1."""


class SamplePicker:
    """Look at every frame, and give out at most one in each interval: the one with most doubt, or a random one."""

    def __init__(self, *, interval_s: float, uncertain_below: float, random_share: float, random: Random) -> None:
        """Begin with no frame.

        Args:
            interval_s: The length of an interval, in seconds.
            uncertain_below: A frame is uncertain when a detection in it is below this confidence.
            random_share: In which share of the intervals the frame is a random one, 0 to 1.
            random: Decides which.
        """
        self._interval_s = interval_s
        self._uncertain_below = uncertain_below
        self._random_share = random_share
        self._random = random
        self._end_s: float | None = None
        self._best: Pick | None = None
        self._drawn: Result | None = None
        self._drawn_from = 0
        self._last: defaultdict[str, deque[Result]] = defaultdict(lambda: deque(maxlen=3))
        self._frames: Counter[str] = Counter()
        self._frames_with: Counter[tuple[str, int]] = Counter()
        self._picked: defaultdict[str, deque[NDArray[np.float32]]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    def look_at(self, result: Result) -> None:
        """Take in a frame and what was detected in it."""
        self._drawn_from += 1
        if self._random.random() * self._drawn_from < 1:  # each frame of the interval is as likely as every other
            self._drawn = result
        reasons = []
        doubt = entropy(result)
        if len(result.detections) and float(result.detections.scores.min()) < self._uncertain_below:
            reasons.append(SampleReason.UNCERTAIN)
        if self._is_rare(result):
            reasons.append(SampleReason.RARE)
            doubt = max(doubt, RARE_DOUBT)
        if reasons:
            self.suggest(result, reasons, doubt)
        last = self._last[result.camera]
        last.append(result)
        if len(last) == last.maxlen and (doubt := inconsistency(*last)):
            self.suggest(last[1], [SampleReason.INCONSISTENT], doubt)

    def suggest(self, result: Result, reasons: list[SampleReason], doubt: float) -> None:
        """Suggest a frame, for reasons that are known elsewhere, too. It is passed over if its like has been picked."""
        best = self._best
        if best is not None and best.result is result:
            self._best = Pick(result, tuple(dict.fromkeys([*best.reasons, *reasons])), max(best.doubt, doubt))
        elif (best is None or doubt >= best.doubt) and self._is_new(result):
            self._best = Pick(result, tuple(reasons), doubt)

    def take(self, now_s: float) -> Pick | None:
        """Return the frame of an interval that is over; None while one lasts, and where it had none.

        Args:
            now_s: Seconds of a clock that never goes back.
        """
        if self._end_s is None:
            self._end_s = now_s
        if now_s < self._end_s:
            return None
        pick, drawn = self._best, self._drawn
        if drawn is not None and self._random.random() < self._random_share and self._is_new(drawn):
            pick = Pick(drawn, (SampleReason.RANDOM,), max(RANDOM_DOUBT, entropy(drawn)))
        self._best, self._drawn, self._drawn_from = None, None, 0
        if pick is not None:
            self._picked[pick.result.camera].append(grey_of(pick.result.image))
        self._end_s = now_s + self._interval_s
        return pick

    def _is_rare(self, result: Result) -> bool:
        camera = result.camera
        before = self._frames[camera]
        seen = set(map(int, result.detections.classes))
        rare = before >= RARE_FRAMES and any(self._frames_with[camera, one] < RARE_SHARE * before for one in seen)
        self._frames[camera] += 1
        self._frames_with.update((camera, one) for one in seen)
        return rare

    def _is_new(self, result: Result) -> bool:
        """Return whether nothing like this frame has been picked of its camera."""
        picked = self._picked[result.camera]
        return not picked or not is_alike(grey_of(result.image), np.stack(picked)).any()


def entropy(result: Result) -> float:
    """Return the entropy of the least certain detection in bits, 0 to 1; 0 where there is none."""
    scores = np.clip(result.detections.scores, 1e-6, 1 - 1e-6)
    entropies = -(scores * np.log2(scores) + (1 - scores) * np.log2(1 - scores))
    return float(np.clip(entropies, 0, 1).max(initial=0.0))


def inconsistency(before: Result, result: Result, after: Result) -> float:
    """Return how surely an object is missing in a frame, or is of another class, that was there before and after.

    Args:
        before: The frame before it, of the same camera.
        result: The frame.
        after: The frame after it.

    Returns:
        The confidence of the surest such object in the frame where it is less sure, 0 to 1; 0 where there is none.
    """
    if after.captured_s - before.captured_s > LONGEST_S or before.model.release != after.model.release:
        return 0.0
    found, doubt = result.detections, 0.0
    for box, score, class_id in zip(*_parts(before), strict=True):
        there = after.detections
        same = (box_iou(box, there.boxes) >= _SLOW_IOU) & (there.classes == class_id) & (there.scores >= SURE)
        if score < SURE or not same.any():
            continue
        if not ((box_iou(box, found.boxes) >= _SAME_IOU) & (found.classes == class_id)).any():
            doubt = max(doubt, min(float(score), float(there.scores[same].max())))
    return doubt


def grey_of(image: Image) -> NDArray[np.float32]:
    """Return the mean level of grey of each cell of a frame, as it differs from the median of all; float32, [cells]."""
    grey = thumbnail_of(image).mean(axis=1)
    return np.asarray(grey - np.median(grey), np.float32)


def is_alike(one: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return for each of other frames whether it shows the same as this one: [n] of [n, cells]."""
    return np.asarray((np.abs(others - one) > CHANGED_LEVELS).sum(axis=1) < CHANGED_CELLS)


def _parts(result: Result) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    return result.detections.boxes, result.detections.scores, result.detections.classes
