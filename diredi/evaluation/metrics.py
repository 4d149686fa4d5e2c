"""Metrics of quality as values; readable without torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ClassMetrics(BaseModel):
    """Average precision of one class, 0..1, and how many boxes of it were labelled."""

    model_config = ConfigDict(frozen=True)

    ap50: float
    ap50_95: float
    boxes: int = 0


class DetectionMetrics(BaseModel):
    """Quality on one set of images, 0..1. Means run over the classes that have boxes in the set.

    Precision, recall and F1 are those at the confidence at which the mean F1 is best, at an overlap of 0.5.
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
    """How much AP50-95 each class of `before` has lost, 0..1; classes that improved count as 0."""
    return {
        name: max(old.ap50_95 - after.per_class[name].ap50_95, 0.0)
        for name, old in before.per_class.items()
        if name in after.per_class
    }
