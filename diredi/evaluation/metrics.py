"""Metrics of detection as values; they need no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ClassMetrics(BaseModel):
    """Metrics of one class on one set of images.

    Attributes:
        ap50: Average precision at an overlap (IoU) of 0.5, from 0 to 1.
        ap50_95: Mean of the average precisions at overlaps from 0.5 to 0.95 in steps of 0.05, from 0 to 1.
        boxes: How many boxes of the class are labelled in the set.
    """

    model_config = ConfigDict(frozen=True)

    ap50: float
    ap50_95: float
    boxes: int = 0


class DetectionMetrics(BaseModel):
    """Metrics of a detector on one set of images.

    Means run over the classes that have boxes in the set. Precision, recall and F1 are those at the confidence at which
    the mean F1 is best, at an overlap (IoU) of 0.5.

    Attributes:
        map50: Mean average precision at an overlap of 0.5, from 0 to 1.
        map50_95: Mean average precision over overlaps from 0.5 to 0.95, as COCO defines it, from 0 to 1.
        precision: Share of the detections that are right, from 0 to 1.
        recall: Share of the labelled boxes that are found, from 0 to 1.
        f1: Harmonic mean of precision and recall for each class, averaged over the classes.
        per_class: Metrics of each class that has boxes, by name.
        images: How many images were judged.
        confidence: The confidence at which the mean F1 is best, which is a good threshold for an edge node.
    """

    model_config = ConfigDict(frozen=True)

    map50: float
    map50_95: float
    precision: float
    recall: float
    f1: float
    per_class: dict[str, ClassMetrics]
    images: int
    confidence: float = 0.0
    """The confidence at which the mean F1 is best: a good threshold for an edge node."""


def forgetting(before: DetectionMetrics, after: DetectionMetrics) -> dict[str, float]:
    """Return how much average precision each class has lost.

    Args:
        before: Metrics before an update.
        after: Metrics after it, on the same images.

    Returns:
        The loss of AP50-95 by class name, from 0 to 1; a class that has improved counts as 0.
    """
    return {
        name: max(old.ap50_95 - after.per_class[name].ap50_95, 0.0)
        for name, old in before.per_class.items()
        if name in after.per_class
    }
