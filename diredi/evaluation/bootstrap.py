"""Average precision of resampled images: how much it would vary from one set of images to another.

The bootstrap draws the images again, with replacement. What it draws for one method it draws for its rival too, so that
their difference varies less than either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diredi.evaluation.detection import Matches

RESAMPLES = 200
RECALLS = 101
"""Recalls from 0 to 1 at which COCO reads the precision."""

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]


def draw_images(images: int, seed: int, resamples: int = RESAMPLES) -> Counts:
    """Return how often each resample has each image, resamples x images. The first is the images as they are."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.concatenate([np.ones((1, images), np.int64), drawn])


def ap50(matches: Matches, classes: Sequence[int], drawn: Counts) -> Numbers:
    """Return the mean average precision at an overlap of 0.5 of each resample, in percent.

    It is COCO's, with an image that was drawn twice counted twice. A class of which a resample shows no box is left out
    of its mean.

    Args:
        matches: Of one detector.
        classes: The classes to average over.
        drawn: Resamples x images, from `draw_images`.
    """
    found = np.stack([_ap50_of_class(matches, kind, drawn) for kind in classes], 1)
    shown = drawn @ matches.boxes[:, list(classes)] > 0
    means: Numbers = 100 * np.where(shown, found, 0).sum(1) / np.maximum(shown.sum(1), 1)
    return means


def _ap50_of_class(matches: Matches, kind: int, drawn: Counts) -> Numbers:
    """0 to 1 for each resample. Each detection reaches some recalls, which read the best precision from there on."""
    mine = np.flatnonzero(matches.classes == kind)
    mine = mine[np.argsort(-matches.scores[mine], kind="stable")]
    said, boxes = drawn[:, matches.images[mine]], drawn @ matches.boxes[:, kind]
    hits = (said * matches.right[mine]).cumsum(1)
    precision = hits / np.maximum(said.cumsum(1), 1)
    best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    reached = np.floor((RECALLS - 1) * hits / np.maximum(boxes, 1)[:, None] + 1e-9) + 1
    newly = np.diff(np.where(hits > 0, reached, 0), axis=1, prepend=0)
    found: Numbers = (best * newly).sum(1) / RECALLS
    return found


def interval(differences: Numbers) -> tuple[float, float]:
    """Return the bounds between which 95 percent of the resamples lie. The first, which is none, is left out."""
    low, high = np.percentile(differences[1:], (2.5, 97.5))
    return float(low), float(high)
