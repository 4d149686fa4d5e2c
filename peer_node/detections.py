"""What detectors that are peers exchange: the boxes that each finds on public images. This module needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from diredi.errors import InvalidInput
from diredi.labels import LabelSpace

Values = TypeVar("Values", NDArray[np.int64], NDArray[np.float32])

MAX_CLASSES = 1000
"""Classes that a peer can name."""
BOX_BYTES = 24
"""What a box takes on the wire at most: 16 for its corners, 4 for its score, and its class."""


@dataclass(frozen=True)
class DetectionsSpec:
    """Describe the detections of a peer. Only the public set and `max_boxes` are alike at all peers."""

    public_set: str
    """Digest of the public set: "sha256:" and 64 hex digits."""
    samples: int
    """Number of images in the public set."""
    names: tuple[str, ...]
    """The peer's own class names, in the order of their ids."""
    max_boxes: int = 100
    """Most boxes for an image."""

    def validation_error(self, update: object) -> str:
        """Compare an own update with this spec.

        Returns:
            What is wrong with the update; empty if nothing is.
        """
        if not isinstance(update, PublicDetections):
            return "no detections where they are promised"
        if tuple(update.qualities) != self.names:
            return f"classes other than the promised {', '.join(self.names)[:200]}"
        return self.answer_error(update)

    def answer_error(self, answer: PublicDetections) -> str:
        """Check a neighbour's answer, whose classes may be others.

        Returns:
            What is wrong with it; empty if nothing is.
        """
        if len(answer.counts) != self.samples:
            return f"{len(answer.counts)} images where {self.samples} are due"
        if answer.counts.max(initial=0) > self.max_boxes:
            return f"{answer.counts.max()} boxes on one image, of {self.max_boxes} at most"
        return answer.validation_error()


@dataclass(frozen=True, eq=False)
class PublicDetections:
    """Hold what a detector finds on each public image, and how well it finds each of its classes."""

    counts: NDArray[np.int64]
    """[images]: the number of boxes of each, in the order of the public set; those of all images follow each other."""
    boxes: NDArray[np.float32]
    """[boxes, 4]: x1, y1, x2, y2 as shares of the image's width and height, 0 to 1."""
    scores: NDArray[np.float32]
    """[boxes], 0 to 1."""
    classes: NDArray[np.int64]
    """[boxes]: positions in `qualities`."""
    qualities: Mapping[str, float]
    """Every class name of the peer, in the order of their ids, to its average precision (AP50) on own held-out images,
    0 to 1; 0 where it does not speak for the class."""

    def validation_error(self) -> str:
        """Check the values.

        Returns:
            What is wrong with them; empty if nothing is.
        """
        return self._classes_error() or self._boxes_error()

    def _classes_error(self) -> str:
        if not 0 < len(self.qualities) <= MAX_CLASSES:
            return f"{len(self.qualities)} classes, which must be 1 to {MAX_CLASSES}"
        try:
            LabelSpace.of(self.qualities)
        except InvalidInput as error:
            return f"a name that cannot be one: {str(error)[:200]}"
        if not all(0 <= quality <= 1 for quality in self.qualities.values()):
            return "an average precision that is not from 0 to 1"
        return ""

    def _boxes_error(self) -> str:
        total = len(self.scores)
        shapes = self.boxes.shape, self.scores.shape, self.classes.shape
        if shapes != ((total, 4), (total,), (total,)) or self.counts.min(initial=0) < 0 or self.counts.sum() != total:
            return "numbers of boxes, scores and classes that differ"
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            return "a box or a score that is not a finite number"
        if self.boxes.min(initial=0) < 0 or self.boxes.max(initial=0) > 1:
            return "a box outside its image"
        if (self.boxes[:, 2:] <= self.boxes[:, :2]).any():
            return "a box without an area"
        if self.scores.min(initial=0) < 0 or self.scores.max(initial=0) > 1:
            return "a score that is not from 0 to 1"
        if self.classes.min(initial=0) < 0 or self.classes.max(initial=0) >= len(self.qualities):
            return f"a class beyond its {len(self.qualities)}"
        return ""

    def snapshot(self) -> PublicDetections:
        """Return a copy that further learning does not change."""
        return PublicDetections(
            _read_only_copy(self.counts),
            _read_only_copy(self.boxes),
            _read_only_copy(self.scores),
            _read_only_copy(self.classes),
            dict(self.qualities),
        )


def _read_only_copy(values: Values) -> Values:
    copy = values.copy()
    copy.flags.writeable = False
    return copy
