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
from diredi.labels import Judge, LabelSpace, matching_ids

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
    ids = np.array(matching_ids(predictor.labels.names, labels.names), np.float32)
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


def weighted_boxes_fusion(
    answers: Sequence[Detections],
    confidence: float,
    *,
    trust: NDArray[np.float64] | None = None,
    agreeing: int = 1,
) -> Detections:
    """Fuse what several looks or several detectors say of one image.

    Boxes of one class that overlap are taken for one object. Its box is the mean of theirs, weighted by trust times
    score, and its score is the mean of all who know the class, weighted by trust; who knows the class and has not seen
    the object counts as 0 (Solovyev, Wang, Gabruseva, 2021, arXiv 1910.13302).

    Args:
        answers: What each has found, class ids of one label space.
        confidence: Objects with a lower score are left out.
        trust: How far each is to be trusted, for each class [answers, classes], such as its average precision. 0 means
            that it was never taught the class: it does not speak for it, and its silence does not speak against it.
            None: all alike.
        agreeing: How many have to see an object, or all who know its class where these are fewer; with 2, what only
            one of several has seen is left out.

    Returns:
        The objects, best first.
    """
    boxes = np.concatenate([answer.boxes for answer in answers])
    scores = np.concatenate([answer.scores for answer in answers])
    classes = np.concatenate([answer.classes for answer in answers])
    sources = np.repeat(np.arange(len(answers)), [len(answer.scores) for answer in answers])
    heard = np.ones(len(scores)) if trust is None else trust[sources, classes]
    order = [row for row in np.argsort(-scores, kind="stable") if heard[row] * scores[row] > 0]
    groups: list[_Group] = []
    for row in order:
        same = [group for group in groups if group.kind == classes[row]]
        overlaps = box_iou(boxes[row], np.array([group.box for group in same], np.float32).reshape(-1, 4))
        if same and overlaps.max() > SAME:
            group = same[int(overlaps.argmax())]
        else:
            group = _Group(int(classes[row]))
            groups.append(group)
        group.add(boxes[row], float(scores[row]), float(heard[row]), int(sources[row]))
    kept: list[tuple[_Group, float]] = []
    for group in groups:
        jury = np.ones(len(answers)) if trust is None else trust[:, group.kind]
        score = group.score(float(jury.sum()))
        if score >= confidence and len(group.seen_by) >= min(agreeing, int((jury > 0).sum())):
            kept.append((group, score))
    kept.sort(key=lambda one: -one[1])
    return Detections(
        np.array([group.box for group, _ in kept], np.float32).reshape(-1, 4),
        np.array([score for _, score in kept], np.float32),
        np.array([group.kind for group, _ in kept], np.int64),
    )


class _Group:
    """Boxes that are taken for one object."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.box = np.zeros(4, np.float32)
        self.seen_by: set[int] = set()
        self._trust = self._weight = 0.0

    def add(self, box: Floats, score: float, trust: float, source: int) -> None:
        weight = self._weight + trust * score
        self.box = np.asarray((self.box * self._weight + box * trust * score) / weight, np.float32)
        self._weight, self._trust = weight, self._trust + trust
        self.seen_by.add(source)

    def score(self, jury: float) -> float:
        """The mean over the trust of all who know the class; over its boxes' where one has given two."""
        return self._weight / max(jury, self._trust)


def _mirrored(found: Detections, width: int) -> Detections:
    x1, y1, x2, y2 = found.boxes.T
    return replace(found, boxes=np.stack([width - x2, y1, width - x1, y2], 1))
