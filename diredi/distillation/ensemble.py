"""A teacher that looks several times before it says what is there: better pseudo-labels, and no label needed.

    oracle = TTAPredictor.of(teacher, sizes=(160, 224))
    images = pseudo_label(oracle, images, student.spec.labels)

A student at the edge has one look of few pixels; its teacher has time. Each image is shown at several sizes, plain and
mirrored, and what the looks say is fused: Solovyev, Wang, Gabruseva, "Weighted boxes fusion", 2021, arXiv 1910.13302.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from diredi.boxes import box_iou
from diredi.data.dataset import Sample
from diredi.data.images import read_image
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.predictor import Detections, Image, Predictor
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace

SAME = 0.55
"""Overlap from which two looks have seen the same object: the paper's."""
FAINTEST = 0.02
"""What a single look is less sure of is not worth fusing."""
_AT_ONCE = 32  # images in memory

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TTAPredictor:
    """A `Predictor` that asks several and fuses their answers; `mirrored`: each of them twice."""

    several: tuple[Predictor, ...]
    mirrored: bool = True

    @classmethod
    def of(cls, detector: Detector, sizes: Sequence[int]) -> Self:
        """The same weights at several sizes of input. Raises InvalidInput for one that is no multiple of 32 pixels."""
        if not sizes or any(size < 32 or size % 32 for size in sizes):
            raise InvalidInput(
                f"looks of {', '.join(map(str, sizes)) or 'no'} pixels: name sizes, each a multiple of 32"
            )
        specs = [detector.spec.model_copy(update={"image_size": size}) for size in sizes]
        return cls(tuple(registry.from_weights(spec, detector.weights(), detector.device) for spec in specs))

    @property
    def labels(self) -> LabelSpace:
        return self.several[0].labels

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        """A score is the mean over all looks; one that has not seen the object counts as 0."""
        floor = max(confidence / 2, FAINTEST)
        looks = [look.predict(images, floor) for look in self.several]
        if self.mirrored:
            turned = [np.ascontiguousarray(image[:, ::-1]) for image in images]
            for look in self.several:
                found = look.predict(turned, floor)
                looks.append([_mirrored(f, i.shape[1]) for f, i in zip(found, images, strict=True)])
        return [weighted_boxes_fusion(answers, confidence) for answers in zip(*looks, strict=True)]


def pseudo_label(
    predictor: Predictor, samples: Sequence[Sample], labels: LabelSpace, confidence: float
) -> list[Sample]:
    """The same images with what `predictor` finds in them for labels, in the ids of `labels`; nothing found, no box.

    Classes that `labels` lacks are left out. Raises DatasetError for an unreadable image.
    """
    ids = np.array([labels.names.index(n) if n in labels.names else -1 for n in predictor.labels.names], np.float32)
    seen = []
    for start in range(0, len(samples), _AT_ONCE):
        some = samples[start : start + _AT_ONCE]
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
