"""Scores of new classes, lowered until they are seldom found where there are none.

Average precision does not see a class that is found on images without it. The manufacturer's images do: they show no
new class. One number is taken from all scores of new classes, so their order, and with it average precision, stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from diredi.data.dataset import Sample
from diredi.detectors.base import Detector
from diredi.evaluation.false_alarms import RUNNING_CONFIDENCE, scores_of
from diredi.store.weights import WeightMap

SHARE: Final = 0.5
"""Of the false alarms that may be, on the images that are counted on: on others there will be more by chance."""
LOWEST: Final = 0.01
BELOW: Final = 0.05  # logits under the running confidence
ENOUGH: Final = 5.0
"""Where fewer false alarms than so may be on all images, their number says little, and their scores say more."""
TAIL: Final = 80
"""Of so many highest scores."""


@dataclass(frozen=True)
class Loudness:
    """How often new classes are found where they are not."""

    per_100: float
    """On 100 images, at the running confidence."""
    by: float
    """By how many logits their scores must fall so that this is seldom enough; 0 or less."""


def loudness_of(model: Detector, images: Sequence[Sample], new: Sequence[int], most: float) -> Loudness:
    """Find how often new classes are found where they are not, and by how much their scores must fall.

    Args:
        model: The detector.
        images: Images that show no new class.
        new: Ids of the new classes.
        most: How often they may be found on 100 images, at the running confidence.
    """
    if not images or not new:
        return Loudness(0.0, 0.0)
    return loudness(scores_of(model, images, new, LOWEST), len(images), most)


def loudness(scores: Sequence[float], images: int, most: float) -> Loudness:
    """Find the same from scores of what was found.

    A few images show no false alarm by luck. What they do show is how fast false detections become rarer the surer
    they are: in logits, their tail is taken as exponential (peaks over a threshold; Pickands 1975), with the mean
    excess over the lowest of the highest `TAIL` as its scale.

    Args:
        scores: Confidences, 0 to 1, of detections of new classes on images that show none.
        images: How many images those were.
        most: How often new classes may be found on 100 images, at the running confidence.
    """
    found = sorted(map(_logit, scores), reverse=True)
    running, allowed = _logit(RUNNING_CONFIDENCE), SHARE * most * images / 100
    counted = sum(one >= running for one in found)
    *top, least = found[: TAIL + 1] or [running]
    scale = sum(one - least for one in top) / max(len(top), 1)
    if allowed >= ENOUGH or allowed == 0 or scale <= 0:
        level = found[int(allowed)] + BELOW if counted > allowed else running
        return Loudness(100 * counted / images, min(running - level, 0.0))
    expected = len(top) * math.exp((least - running) / scale) if running > least else counted
    level = least + scale * math.log(len(top) / allowed)
    if counted > allowed:
        level = max(level, found[int(allowed)] + BELOW)
    return Loudness(100 * max(expected, counted) / images, min(running - level, 0.0))


def quieted(model: Detector, new: Sequence[int], by: float) -> Detector:
    """Return a copy with lower scores of some classes.

    Args:
        model: The detector.
        new: Ids of the classes.
        by: A number of logits, 0 or less.
    """
    quieter = model.expand_classes(model.spec.labels)
    weights = dict(model.weights())
    for name, first in model.class_rows().items():
        if name.endswith("bias"):
            weights[name] = weights[name].copy()
            weights[name][first + np.asarray(new)] += np.float32(by)
    quieter.load_weights(WeightMap(weights))
    return quieter


def _logit(score: float) -> float:
    score = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(score / (1 - score))
