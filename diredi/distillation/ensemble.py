"""A teacher that looks several times before it says what is there: better pseudo-labels, and no label needed.

    oracle = TTAPredictor.of(teacher, sizes=(160, 224))
    images = pseudo_label(oracle, images)

A student at the edge has one look of few pixels; its teacher has time. Each image is shown at several sizes, plain and
mirrored, and what the looks say is fused: Solovyev, Wang, Gabruseva, "Weighted boxes fusion", 2021, arXiv 1910.13302.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from diredi.boxes import box_iou
from diredi.data.dataset import Dataset, Sample, Split
from diredi.data.images import read_image
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.predictor import Detections, Image, Predictor
from diredi.errors import InvalidInput
from diredi.labels import Judge, LabelSpace

SAME = 0.55
"""Overlap from which two looks have seen the same object: the paper's."""
FAINTEST = 0.02
"""What a single look is less sure of is not worth fusing."""
_AT_ONCE = 32  # images in memory

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TTAPredictor:
    """Test-time augmentation: a predictor that asks several predictors and fuses their answers.

    A teacher has time that a camera has not: it looks at each image at several sizes, plain and mirrored. The boxes are
    fused by weighted boxes fusion (Solovyev, Wang, Gabruseva, 2021, arXiv 1910.13302).

    Example:
        >>> import diredi
        >>> oracle = diredi.TTAPredictor.of(teacher, sizes=(320, 448, 640))    # doctest: +SKIP
        >>> camera = diredi.pseudo_label(oracle, camera)                       # doctest: +SKIP
    """

    several: tuple[Predictor, ...]
    """Who is asked; all have one label space."""
    mirrored: bool = True
    """Whether each is asked twice, the second time with the image mirrored."""

    @classmethod
    def of(cls, detector: Detector, sizes: Sequence[int]) -> Self:
        """Let one detector look at several sizes of its input.

        Args:
            detector: Whose weights and device are used.
            sizes: Sides of the square input in pixels, each a multiple of 32.

        Raises:
            InvalidInput: There is no size, or one is no multiple of 32.
        """
        if not sizes or any(size < 32 or size % 32 for size in sizes):
            raise InvalidInput(
                f"looks of {', '.join(map(str, sizes)) or 'no'} pixels: name sizes, each a multiple of 32"
            )
        specs = [detector.spec.model_copy(update={"image_size": size}) for size in sizes]
        return cls(tuple(registry.from_weights(spec, detector.weights(), detector.device) for spec in specs))

    @property
    def labels(self) -> LabelSpace:
        """The label space of the first predictor."""
        return self.several[0].labels

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        """Find boxes. A score is the mean over all looks; a look that has not seen the object counts as 0.

        Args:
            images: As for `Predictor.predict`.
            confidence: Boxes with a lower mean score are left out.

        Returns:
            What was found in each image, best first.
        """
        floor = max(confidence / 2, FAINTEST)
        looks = [look.predict(images, floor) for look in self.several]
        if self.mirrored:
            turned = [np.ascontiguousarray(image[:, ::-1]) for image in images]
            for look in self.several:
                found = look.predict(turned, floor)
                looks.append([_mirrored(f, i.shape[1]) for f, i in zip(found, images, strict=True)])
        return [weighted_boxes_fusion(answers, confidence) for answers in zip(*looks, strict=True)]


@overload
def pseudo_label(
    predictor: Predictor,
    data: Dataset,
    labels: LabelSpace | None = None,
    confidence: float = 0.25,
    *,
    splits: Sequence[Split] = ("train",),
) -> Dataset: ...


@overload
def pseudo_label(
    predictor: Predictor, data: Sequence[Sample], labels: LabelSpace | None = None, confidence: float = 0.25
) -> list[Sample]: ...


def pseudo_label(
    predictor: Predictor,
    data: Dataset | Sequence[Sample],
    labels: LabelSpace | None = None,
    confidence: float = 0.25,
    *,
    splits: Sequence[Split] = ("train",),
) -> Dataset | list[Sample]:
    """Replace the labels of images by what a predictor finds in them; their own labels are not read.

    Args:
        predictor: Who labels, such as a large detector or a `TTAPredictor`.
        data: A data set, or samples.
        labels: The label space of the new boxes; None takes the predictor's. Classes that it lacks are left out.
        confidence: Boxes with a lower score are left out.
        splits: The splits of a data set that get new labels. By default `val` keeps its own, to measure on. Where it
            has none, `("train", "val")` gives both splits new ones; what is then measured is an estimate, and the
            metrics say so (`judged_by`).

    Returns:
        The same images with the boxes that were found; an image in which nothing was found has none.

    Raises:
        DatasetError: An image cannot be read.
    """
    labels = predictor.labels if labels is None else labels
    if isinstance(data, Dataset):
        mapped = data.with_labels(labels.expand(data.names))
        new = {split: pseudo_label(predictor, data.split(split), labels, confidence) for split in splits}
        judge: Judge = "oracle" if "val" in splits else data.judged_by
        return replace(mapped, train=new.get("train", mapped.train), val=new.get("val", mapped.val), judged_by=judge)
    ids = np.array([labels.names.index(n) if n in labels.names else -1 for n in predictor.labels.names], np.float32)
    seen = []
    for start in range(0, len(data), _AT_ONCE):
        some = data[start : start + _AT_ONCE]
        images = [read_image(sample.image) for sample in some]
        for sample, image, found in zip(some, images, predictor.predict(images, confidence), strict=True):
            scale = np.array([image.shape[1], image.shape[0]], np.float32)
            low, high = found.boxes[:, :2] / scale, found.boxes[:, 2:] / scale
            boxes = np.concatenate([ids[found.classes][:, None], (low + high) / 2, high - low], 1)
            seen.append(replace(sample, boxes=boxes[boxes[:, 0] >= 0].astype(np.float32)))
    return seen


def weighted_boxes_fusion(answers: Sequence[Detections], confidence: float) -> Detections:
    """What several looks at one image say together: boxes are means, weighted by score; best first."""
    boxes = np.concatenate([answer.boxes for answer in answers])
    scores = np.concatenate([answer.scores for answer in answers])
    classes = np.concatenate([answer.classes for answer in answers])
    order = np.argsort(-scores, kind="stable")
    groups: list[_Group] = []
    for row in order:
        same = [group for group in groups if group.kind == classes[row]]
        overlaps = box_iou(boxes[row], np.array([group.box for group in same], np.float32).reshape(-1, 4))
        if same and overlaps.max() > SAME:
            same[int(overlaps.argmax())].add(boxes[row], scores[row])
        else:
            groups.append(_Group(boxes[row], scores[row], int(classes[row])))
    groups.sort(key=lambda group: -group.score(len(answers)))
    kept = [group for group in groups if group.score(len(answers)) >= confidence]
    return Detections(
        np.array([group.box for group in kept], np.float32).reshape(-1, 4),
        np.array([group.score(len(answers)) for group in kept], np.float32),
        np.array([group.kind for group in kept], np.int64),
    )


class _Group:
    """Boxes that are taken for one object."""

    def __init__(self, box: Floats, score: np.float32, kind: int) -> None:
        self.box, self.weight, self.kind, self.members = box, float(score), kind, 1

    def add(self, box: Floats, score: np.float32) -> None:
        weight = self.weight + float(score)
        self.box = np.asarray((self.box * self.weight + box * score) / weight, np.float32)
        self.weight = weight
        self.members += 1

    def score(self, looks: int) -> float:
        """The mean over all looks; over its boxes where a look has given two."""
        return self.weight / max(looks, self.members)


def _mirrored(found: Detections, width: int) -> Detections:
    x1, y1, x2, y2 = found.boxes.T
    return replace(found, boxes=np.stack([width - x2, y1, width - x1, y2], 1))
