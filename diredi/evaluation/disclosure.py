"""Metrics of private images in the form in which they may leave their site.

Whoever chooses the model that is measured can ask a question about one image: a model that finds nothing if that image
has a white corner, or hundreds of false boxes. So no single image may decide a figure. The images are dealt into three
parts, each figure is the median of the three parts' (sample and aggregate: Nissim, Raskhodnikova and Smith 2007,
section 4), and it is rounded. One image changes the figures of one part only, so the median stays within those of the
two others. Few images, and classes of few boxes, say nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Final

from diredi.data.dataset import Dataset
from diredi.detectors.predictor import Predictor
from diredi.evaluation.detection import evaluate_parts
from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics
from diredi.progress import OnProgress

PARTS: Final = 3
DIGITS: Final = 2
"""A hundredth of the range of a figure."""
LEAST_BOXES: Final = 10
"""A class with fewer in all parts together is left out."""
WITHHELD: Final = DetectionMetrics(map50=0, map50_95=0, precision=0, recall=0, f1=0, per_class={}, images=0)
"""What a site says that has too few images to say anything."""


def evaluate_for_disclosure(
    model: Predictor, data: Dataset, *, least_images: int, on_progress: OnProgress | None = None
) -> DetectionMetrics:
    """Measure a model on held-out private images, so that the metrics tell little about any one of them.

    Args:
        model: A detector, or an exported one.
        data: A data set; its `val` images are used.
        least_images: With fewer of them nothing is told.
        on_progress: Hears of the step "evaluate".

    Returns:
        Medians of three parts, rounded, without the classes that have too few boxes; or `WITHHELD`.

    Raises:
        InvalidInput: There are no labelled boxes, or the data spells a class of the model in another way.
        DatasetError: An image cannot be read.
    """
    parts = evaluate_parts(model, data, PARTS, on_progress=on_progress)
    if len(data.val) < least_images or len(parts) < PARTS:
        return WITHHELD.model_copy(update={"judged_by": data.judged_by})
    return combine_parts(parts).model_copy(update={"judged_by": data.judged_by})


def counts_for_disclosure(counts: Mapping[str, int]) -> dict[str, int]:
    """Return numbers of boxes by class to the next ten, without those below ten, so that they do not show one image."""
    return {name: round(count, -1) for name, count in counts.items() if count >= LEAST_BOXES}


def for_disclosure(least_images: int) -> Callable[..., DetectionMetrics]:
    """Return `evaluate_for_disclosure` in the form of `diredi.evaluation.detection.evaluate`."""
    return partial(evaluate_for_disclosure, least_images=least_images)


def combine_parts(parts: Sequence[DetectionMetrics]) -> DetectionMetrics:
    """Return what may be told of metrics of disjoint sets of images: the median of each figure, rounded."""

    def middle(figure: Callable[[DetectionMetrics], float]) -> float:
        return round(median(figure(part) for part in parts), DIGITS)

    everywhere = [name for name in parts[0].per_class if all(name in part.per_class for part in parts)]
    boxes = {name: sum(part.per_class[name].boxes for part in parts) for name in everywhere}
    return DetectionMetrics(
        map50=middle(lambda part: part.map50),
        map50_95=middle(lambda part: part.map50_95),
        precision=middle(lambda part: part.precision),
        recall=middle(lambda part: part.recall),
        f1=middle(lambda part: part.f1),
        per_class={
            name: ClassMetrics(
                ap50=middle(lambda part, name=name: part.per_class[name].ap50),  # type: ignore[misc]
                ap50_95=middle(lambda part, name=name: part.per_class[name].ap50_95),  # type: ignore[misc]
                boxes=boxes[name],
            )
            for name in everywhere
            if boxes[name] >= LEAST_BOXES
        },
        images=sum(part.images for part in parts),
        confidence=middle(lambda part: part.confidence),
    )
