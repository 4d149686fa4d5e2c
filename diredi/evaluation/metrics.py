"""Metrics of detection as values; they need no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from diredi.errors import InvalidInput
from diredi.labels import Judge

if TYPE_CHECKING:
    from pandas import DataFrame


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
        judged_by: Who said what is on the images: "labels" that came with them, or an "oracle". Metrics by an oracle's
            answers are an estimate: they measure how far the detector agrees with it.
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
    judged_by: Judge = "labels"
    """Who said what is on the images."""

    @property
    def estimated(self) -> bool:
        """Whether these metrics are an estimate, because no labels but an oracle's answers were there to judge by."""
        return self.judged_by == "oracle"

    def __str__(self) -> str:
        """Return the means as one line in percent; it says where they are an estimate."""
        means = {
            "mAP50": self.map50,
            "mAP50-95": self.map50_95,
            "precision": self.precision,
            "recall": self.recall,
            "F1": self.f1,
        }
        said = ", ".join(f"{name} {100 * value:.1f} %" for name, value in means.items()) + f" on {self.images} images"
        return f"{said}, estimated by an oracle's answers" if self.estimated else said

    def to_pandas(self) -> DataFrame:
        """Return the metrics as a table.

        Returns:
            A pandas DataFrame with one row for each class and a last one, "all", for the means; columns `ap50`,
            `ap50_95` and `boxes`, and `precision`, `recall`, `f1` and `confidence`, which only "all" has.

        Raises:
            InvalidInput: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise InvalidInput("pandas is not installed: run `pip install pandas`") from None
        rows = {name: found.model_dump() for name, found in self.per_class.items()}
        rows["all"] = {
            "ap50": self.map50,
            "ap50_95": self.map50_95,
            "boxes": sum(found.boxes for found in self.per_class.values()),
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "confidence": self.confidence,
        }
        return pd.DataFrame.from_dict(rows, orient="index")


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
