"""Average precision by faster-coco-eval; precision, recall and F1 from the same matches. Torch is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from diredi.boxes import box_iou
from diredi.data.dataset import Dataset, Sample, Split
from diredi.data.images import read_image
from diredi.detectors.predictor import Detections, Predictor
from diredi.errors import InvalidInput
from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics
from diredi.labels import LabelSpace, matching_ids
from diredi.progress import OnProgress, report

BATCH = 32
STEP = "evaluate"
MAX_DETECTIONS = 300
CONFIDENCES: NDArray[np.float64] = np.linspace(0.001, 1, 1000)

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    """Which detections find a labelled box, image by image: all that average precision at an overlap of 0.5 needs."""

    images: NDArray[np.int64]
    """Of each detection: the image that it is in."""
    classes: NDArray[np.int64]
    """Of each detection: its class, an id of the labels' label space."""
    scores: NDArray[np.float64]
    """Of each detection: its confidence, 0 to 1."""
    right: NDArray[np.bool_]
    """Of each detection: whether it finds a box of its class that no better one has found."""
    boxes: NDArray[np.int64]
    """Images x classes: how many boxes are labelled."""


def evaluate(
    model: Predictor,
    data: Dataset | Sequence[Sample],
    labels: LabelSpace | None = None,
    *,
    split: Split = "val",
    on_progress: OnProgress | None = None,
) -> DetectionMetrics:
    """Measure how well a model finds labelled boxes.

    Average precision is COCO's, by faster-coco-eval, over all detections of a confidence of 0.001 or more; precision,
    recall and F1 are those at the confidence where the mean F1 is best, at an overlap (IoU) of 0.5. Classes go by their
    names. One that the data has and the model does not know is never found: its average precision is 0.

    Args:
        model: A detector, an exported one (`OnnxPredictor`), or anything else with `labels` and `predict`.
        data: A data set; or samples whose class ids are those of `labels`.
        labels: The label space of the samples, maybe with classes that the model does not know; None: the model's. A
            data set needs none.
        split: Which images of a data set: "val", or "train".
        on_progress: Hears of the step "evaluate".

    Returns:
        Metrics from 0 to 1: means over the classes that have boxes in the images, and those of each such class.

    Raises:
        InvalidInput: There are no labelled boxes, or the data spells a class of the model in another way.
        DatasetError: An image cannot be read.

    Examples:
        >>> import diredi
        >>> print(diredi.evaluate(model, site))          # doctest: +SKIP
        mAP50 68.8 %, mAP50-95 39.9 %, precision 72.1 %, recall 63.9 %, F1 66.3 % on 60 images
    """
    if isinstance(data, Dataset):
        labels = model.labels.expand(data.names)
        samples = data.with_labels(labels).split(split)
    else:
        labels, samples = model.labels if labels is None else labels, list(data)
    metrics, _ = _judge(*_collect(model, samples, labels, on_progress))
    if isinstance(data, Dataset) and split == "val":
        return metrics.model_copy(update={"judged_by": data.judged_by})
    return metrics


def evaluate_with_matches(
    model: Predictor, samples: Sequence[Sample], labels: LabelSpace
) -> tuple[DetectionMetrics, Matches]:
    """Measure as `evaluate` does, and keep what each image contributes, for statistics over images.

    Args:
        model: As for `evaluate`.
        samples: Images with class ids of `labels`.
        labels: The label space of the samples.

    Returns:
        The metrics, and the matches from which they follow.

    Raises:
        InvalidInput: There are no labelled boxes.
        DatasetError: An image cannot be read.
    """
    return _judge(*_collect(model, samples, labels, None))


def f1_by_class(matches: Matches, labels: LabelSpace, confidence: float) -> dict[str, float]:
    """Return the F1 of each class that was labelled, 0 to 1, of what a detector reports at a confidence.

    Args:
        matches: As `evaluate_with_matches` returns them.
        labels: The label space of the labelled boxes.
        confidence: Detections with a lower score are not reported; 0 to 1.
    """
    wanted, reported = matches.boxes.sum(0), matches.scores >= confidence
    found = {}
    for class_id in np.flatnonzero(wanted):
        own = reported & (matches.classes == class_id)
        found[labels.names[class_id]] = 2 * float((own & matches.right).sum()) / float(own.sum() + wanted[class_id])
    return found


def evaluate_parts(
    model: Predictor, data: Dataset, parts: int, *, on_progress: OnProgress | None = None
) -> list[DetectionMetrics]:
    """Measure as `evaluate` does on parts of a data set's held-out images, each of which is in one part.

    Args:
        model: As for `evaluate`.
        data: The data set.
        parts: Into how many parts to deal the images.
        on_progress: Hears of the step "evaluate".

    Returns:
        The metrics of each part that has labelled boxes.

    Raises:
        InvalidInput: There are no labelled boxes, or the data spells a class of the model in another way.
        DatasetError: An image cannot be read.
    """
    labels = model.labels.expand(data.names)
    found, wanted, labels, to_ours = _collect(model, data.with_labels(labels).val, labels, on_progress)
    dealt = [(found[first::parts], wanted[first::parts]) for first in range(parts)]
    return [_judge(*part, labels, to_ours)[0] for part in dealt if any(len(table) for table in part[1])]


def _collect(
    model: Predictor, samples: Sequence[Sample], labels: LabelSpace, on_progress: OnProgress | None
) -> tuple[list[Detections], list[Table], LabelSpace, list[int]]:
    """Detections, labelled boxes in pixels, their label space, and the id in it of each class of the model."""
    if not any(len(sample.boxes) for sample in samples):
        raise InvalidInput("there is nothing to measure on: the set has no labelled boxes")
    found: list[Detections] = []
    shapes: list[tuple[int, int]] = []
    for start in range(0, len(samples), BATCH):
        images = [read_image(sample.image) for sample in samples[start : start + BATCH]]
        shapes += [(image.shape[0], image.shape[1]) for image in images]
        found += model.predict(images)
        report(on_progress, STEP, len(found) / len(samples), f"{len(found)} of {len(samples)} images")
    to_ours = matching_ids(model.labels.names, labels.names)
    return found, [_pixels(s, *shape) for s, shape in zip(samples, shapes, strict=True)], labels, to_ours


def _pixels(sample: Sample, height: int, width: int) -> NDArray[np.float64]:
    """N x 5: class, x1, y1, x2, y2 in pixels."""
    boxes = np.asarray(sample.boxes, np.float64).reshape(-1, 5)
    centre, sides = boxes[:, 1:3] * (width, height), boxes[:, 3:5] * (width, height)
    return np.concatenate([boxes[:, :1], centre - sides / 2, centre + sides / 2], 1)


def compute_metrics(
    found: Sequence[Detections],
    wanted: Sequence[NDArray[np.float64]],
    labels: LabelSpace,
    to_ours: Sequence[int] | None = None,
) -> DetectionMetrics:
    """Compute the metrics of detections against labelled boxes.

    Args:
        found: Detections of each image.
        wanted: Labelled boxes of each image, float [n, 5]: class id, x1, y1, x2, y2 in pixels.
        labels: The label space of the labelled boxes.
        to_ours: Class id in `labels` for each class id of the detections, -1 for a class that `labels` lacks; None if
            they are the same.

    Returns:
        The metrics over all images.
    """
    return _judge(found, wanted, labels, list(range(len(labels))) if to_ours is None else to_ours)[0]


def _judge(
    found: Sequence[Detections], wanted: Sequence[Table], labels: LabelSpace, to_ours: Sequence[int]
) -> tuple[DetectionMetrics, Matches]:
    answers = _answers(found, to_ours)
    boxes = np.stack([np.bincount(table[:, 0].astype(int), minlength=len(labels)) for table in wanted])
    counts = boxes.sum(0)
    present = np.flatnonzero(counts)
    ap = _average_precision(_truth(wanted, len(labels)), answers)
    right = _matched(answers, wanted)
    precision, recall, f1, confidence = _at_best_f1(answers, right, counts, present)
    per_class = {
        labels.names[c]: ClassMetrics(ap50=float(ap[0, c]), ap50_95=float(ap[:, c].mean()), boxes=int(counts[c]))
        for c in present
    }
    metrics = DetectionMetrics(
        map50=float(ap[0, present].mean()),
        map50_95=float(ap[:, present].mean()),
        precision=precision,
        recall=recall,
        f1=f1,
        per_class=per_class,
        images=len(wanted),
        confidence=confidence,
    )
    images, classes = answers[:, 0].astype(np.int64), answers[:, 6].astype(np.int64)
    return metrics, Matches(images, classes, answers[:, 5], right, boxes)


def _truth(wanted: Sequence[NDArray[np.float64]], classes: int) -> dict[str, Any]:
    """COCO's annotations."""
    rows = [(image, *row) for image, table in enumerate(wanted) for row in table.tolist()]
    return {
        "images": [{"id": i} for i in range(len(wanted))],
        "categories": [{"id": c, "name": str(c)} for c in range(classes)],
        "annotations": [
            {
                "id": number + 1,
                "image_id": image,
                "category_id": int(kind),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for number, (image, kind, x1, y1, x2, y2) in enumerate(rows)
        ],
    }


def _answers(found: Sequence[Detections], to_ours: Sequence[int]) -> Table:
    """N x 7: image, x, y, width, height, score, class."""
    tables = [np.zeros((0, 7))]
    for image, detections in enumerate(found):
        classes = np.asarray(to_ours, np.int64)[detections.classes]
        low, high = detections.boxes[:, :2], detections.boxes[:, 2:]
        columns = [np.full(len(classes), image), *low.T, *(high - low).T, detections.scores, classes]
        tables.append(np.stack(columns, 1).astype(np.float64)[classes >= 0])
    return np.concatenate(tables)


def _average_precision(truth: dict[str, Any], answers: Table) -> Table:
    """10 overlaps (0.50 to 0.95) x classes; -1 for a class without boxes."""
    if len(answers) == 0:
        return np.zeros((10, len(truth["categories"])))
    coco = COCO(truth)
    judge = COCOeval_faster(coco, coco.loadRes(answers), iouType="bbox", print_function=_silent)
    judge.params.maxDets = [1, 10, MAX_DETECTIONS]
    judge.params.areaRng, judge.params.areaRngLbl = [judge.params.areaRng[0]], ["all"]
    judge.evaluate()
    judge.accumulate()
    precision: Table = judge.eval["precision"][:, :, :, 0, -1]
    return np.asarray(precision.mean(1))


def _silent(*_: object) -> None:
    """faster-coco-eval would say what it does."""


def _at_best_f1(
    answers: Table, right: NDArray[np.bool_], counts: NDArray[np.int64], present: NDArray[np.int64]
) -> tuple[float, float, float, float]:
    """Mean precision, recall and F1 over the classes at the confidence where that F1 is best, and the confidence."""
    precision, recall = np.zeros((len(present), len(CONFIDENCES))), np.zeros((len(present), len(CONFIDENCES)))
    for row, kind in enumerate(present):
        mine = answers[:, 6] == kind
        order = np.argsort(-answers[mine, 5], kind="stable")
        scores, hits = answers[mine, 5][order], np.concatenate([[0], right[mine][order].cumsum()])
        said = np.searchsorted(-scores, -CONFIDENCES, side="right")
        precision[row] = np.where(said > 0, hits[said] / np.maximum(said, 1), 0)
        recall[row] = hits[said] / counts[kind]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1.mean(0).argmax())
    means = precision[:, best].mean(), recall[:, best].mean(), f1[:, best].mean(), CONFIDENCES[best]
    return float(means[0]), float(means[1]), float(means[2]), float(means[3])


def _matched(answers: Table, wanted: Sequence[Table]) -> NDArray[np.bool_]:
    """Which answers find a box of their class that no better answer has found, at an overlap of 0.5 or more."""
    right = np.zeros(len(answers), bool)
    free = [np.ones(len(table), bool) for table in wanted]
    for number in np.argsort(-answers[:, 5], kind="stable"):
        image, kind = int(answers[number, 0]), answers[number, 6]
        open_to_it = np.flatnonzero(free[image] & (wanted[image][:, 0] == kind))
        if len(open_to_it) == 0:
            continue
        corners = np.concatenate([answers[number, 1:3], answers[number, 1:3] + answers[number, 3:5]])
        overlaps = box_iou(corners, wanted[image][open_to_it, 1:])
        if overlaps.max() >= 0.5:
            right[number] = True
            free[image][open_to_it[overlaps.argmax()]] = False
    return right
