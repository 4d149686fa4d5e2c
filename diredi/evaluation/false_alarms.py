"""How often a detector finds a class on images that do not show it, which average precision cannot see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.data.dataset import Sample
from diredi.data.images import read_image
from diredi.detectors.predictor import Predictor

RUNNING_CONFIDENCE = 0.25
"""What an edge node reports, unless it is configured otherwise."""
BATCH = 32


def scores_of(model: Predictor, samples: Sequence[Sample], classes: Sequence[int], confidence: float) -> list[float]:
    """Return the score of every detection of some classes.

    Args:
        model: The detector.
        samples: Images; their labels are not read.
        classes: Ids in the model's label space.
        confidence: Detections with a lower score, 0 to 1, are left out.
    """
    found: list[float] = []
    for start in range(0, len(samples), BATCH):
        images = [read_image(sample.image) for sample in samples[start : start + BATCH]]
        for one in model.predict(images, confidence):
            found += one.scores[np.isin(one.classes, list(classes))].tolist()
    return found


def false_alarms(model: Predictor, samples: Sequence[Sample], classes: Sequence[int]) -> float:
    """Return how often some classes are found on 100 images that show none of them, at the running confidence.

    Args:
        model: The detector.
        samples: Images that do not show the classes.
        classes: Ids in the model's label space.
    """
    if not classes or not samples:
        return 0.0
    return 100 * len(scores_of(model, samples, classes, RUNNING_CONFIDENCE)) / len(samples)
