"""Scores of new classes, lowered until they are seldom found where there are none.

Average precision does not see a class that is found on images without it. The manufacturer's images do: they show no
new class. One number is taken from all scores of new classes, so their order, and with it average precision, stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def lowering(model: Detector, images: Sequence[Sample], new: Sequence[int], most: float) -> tuple[float, int]:
    """Find by how much scores of new classes must fall.

    Args:
        model: The detector.
        images: Images that show no new class.
        new: Ids of the new classes.
        most: How often they may be found on 100 images, at the running confidence.

    Returns:
        A number of logits, 0 or less, and how often they were found.
    """
    if not images or not new:
        return 0.0, 0
    found = sorted(scores_of(model, images, new, LOWEST), reverse=True)
    alarms = sum(score >= RUNNING_CONFIDENCE for score in found)
    allowed = int(SHARE * most * len(images) / 100)
    if alarms <= allowed:
        return 0.0, alarms
    return _logit(RUNNING_CONFIDENCE) - _logit(found[allowed]) - BELOW, alarms


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
