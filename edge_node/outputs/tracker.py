"""A small tracker: which box of a frame is the object of a box of the frame before."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diredi.boxes import box_iou
from diredi.detectors.predictor import Detections

SAME_IOU = 0.3
"""From this intersection over union on, a box is the object that was expected there."""
BEGIN_FRAMES = 2
"""An object begins when it has been found in so many frames, one after the other."""
LOST_FRAMES = 2
LOST_S = 2.0
"""An object ends when it was missing in LOST_FRAMES frames or more, for LOST_S seconds or longer."""


@dataclass(eq=False)
class Track:
    """Hold an object that is followed from frame to frame.

    Attributes:
        number: Counts the objects of this tracker from 1; 0 until the object has begun.
        class_id: Its class.
        box: x1, y1, x2, y2 where it was found last, in pixels.
        score: Confidence of the last frame that it was found in, 0 to 1.
        best_score: The highest of its confidences.
        first_s: Time of the first frame that it was found in, in seconds.
        seen_s: Time of the last frame that it was found in, in seconds.
        frames: How many frames it was found in.
        missed: In how many frames since it was missing.
        velocity: Pixels a second by which its corners move, [4].
    """

    class_id: int
    box: NDArray[np.float32]
    score: float
    best_score: float
    first_s: float
    seen_s: float
    number: int = 0
    frames: int = 1
    missed: int = 0
    velocity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))

    def expected_box(self, now_s: float) -> NDArray[np.float32]:
        """Return where the object should be at a time if it goes on as before, [4]."""
        return (self.box + self.velocity * np.float32(now_s - self.seen_s)).astype(np.float32)

    def find(self, box: NDArray[np.float32], score: float, now_s: float) -> None:
        """Note where the object was found."""
        if now_s > self.seen_s:
            moved = (box - self.box) / np.float32(now_s - self.seen_s)
            self.velocity = ((self.velocity + moved) / 2).astype(np.float32)
        self.box, self.score, self.seen_s = box, score, now_s
        self.best_score = max(self.best_score, score)
        self.frames += 1
        self.missed = 0


@dataclass(frozen=True)
class Changes:
    """Hold what a frame has changed."""

    begun: list[Track] = field(default_factory=list)
    found: list[Track] = field(default_factory=list)
    """Those that had begun before and were found again."""
    ended: list[Track] = field(default_factory=list)


class Tracker:
    """Follow the objects of one camera.

    Boxes of a frame go to objects of their class in the order of their overlap with the place where each is expected.
    """

    def __init__(self) -> None:
        """Begin with no object."""
        self._tracks: list[Track] = []
        self._count = 0

    @property
    def tracks(self) -> list[Track]:
        """The objects that have begun and have not ended."""
        return [track for track in self._tracks if track.number]

    def update(self, detections: Detections, now_s: float) -> Changes:
        """Take in a frame.

        Args:
            detections: What was found in it.
            now_s: When it was taken, in seconds of any clock.
        """
        changes = Changes()
        taken = self._match(detections, now_s)
        for index, track in taken.items():
            track.find(detections.boxes[index], float(detections.scores[index]), now_s)
            if track.number:
                changes.found.append(track)
            elif track.frames >= BEGIN_FRAMES:
                self._count += 1
                track.number = self._count
                changes.begun.append(track)
        found = {id(track) for track in taken.values()}
        for track in [track for track in self._tracks if id(track) not in found]:
            track.missed += 1
            if not track.number or (track.missed >= LOST_FRAMES and now_s - track.seen_s >= LOST_S):
                self._tracks.remove(track)
                if track.number:
                    changes.ended.append(track)
        for index in set(range(len(detections))) - set(taken):
            score = float(detections.scores[index])
            self._tracks.append(
                Track(int(detections.classes[index]), detections.boxes[index], score, score, now_s, now_s)
            )
        return changes

    def end_all(self) -> list[Track]:
        """Forget all objects, and return those that had begun."""
        tracks, self._tracks = self.tracks, []
        return tracks

    def _match(self, detections: Detections, now_s: float) -> dict[int, Track]:
        """Return the objects that were found, by the index of the box."""
        pairs: list[tuple[float, int, int]] = []
        for number, track in enumerate(self._tracks):
            for place in (track.expected_box(now_s), track.box):
                overlaps = box_iou(place, detections.boxes)
                fits = (overlaps >= SAME_IOU) & (detections.classes == track.class_id)
                pairs += [(float(overlaps[index]), number, int(index)) for index in np.flatnonzero(fits)]
        taken: dict[int, Track] = {}
        used: set[int] = set()
        for _, number, index in sorted(pairs, reverse=True):
            if number not in used and index not in taken:
                taken[index] = self._tracks[number]
                used.add(number)
        return taken
