"""Relation distillation (RKD): how the objects of a batch lie to each other in feature space, not where they lie.

Park, Kim, Lu, Cho: "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068. Their examples are images; here
they are objects, each the mean of the neck's features under its box.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diredi.detectors.base import Targets
from diredi.distillation.losses.base import DistillationBatch, Loss
from diredi.distillation.losses.boxes import cells

MOST_OBJECTS = 64
"""Of a batch, taken evenly: angles are between all triples."""


class Relation(Loss):
    """Huber distance between what holds among the student's objects and what holds among the teacher's.

    Only numbers of objects are compared, so the two necks may differ in everything and nothing is projected. With too
    few objects for any relation it is 0.
    """

    gain: float
    """The paper's weight beside a classification loss."""

    @abstractmethod
    def relations(self, objects: Tensor) -> Tensor:
        """Of n x d features of n objects, 0 or more; as many numbers whatever d is."""

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        targets = _few(lesson.objects)
        mine = self.relations(features_of(targets, lesson.student.features))
        theirs = self.relations(features_of(targets, lesson.teacher.features))
        return self.gain * F.smooth_l1_loss(mine, theirs, reduction="sum") / max(mine.numel(), 1)


class Distances(Relation):
    """RKD-D, section 3.2.1: the distance of each pair as a share of the mean distance."""

    gain = 2.0

    def relations(self, objects: Tensor) -> Tensor:
        """Return the distances of all pairs of objects."""
        first, second = torch.triu_indices(len(objects), len(objects), offset=1, device=objects.device)
        distances = (objects[first] - objects[second]).norm(dim=1)
        shares: Tensor = distances / (distances.sum() / max(len(distances), 1)).clamp(min=1e-6)
        return shares


class Angles(Relation):
    """RKD-A, section 3.2.2: the cosine of the angle that each object sees between two others."""

    gain = 10.0

    def relations(self, objects: Tensor) -> Tensor:
        """Return the cosines of the angles in all triples of objects."""
        directions = F.normalize(objects[None] - objects[:, None], dim=-1)
        return directions @ directions.transpose(1, 2)


def features_of(targets: Targets, features: Sequence[Tensor]) -> Tensor:
    """N x all channels: the mean of each level's map over the cells under each box, one level after the other."""
    return torch.cat([_means(level.float(), targets) for level in features], 1)


def _means(features: Tensor, targets: Targets) -> Tensor:
    """N x c from batch x c x h x w, by sums over rectangles from the corner: quick whatever the size of the boxes."""
    sums = F.pad(features.cumsum(2).cumsum(3), (1, 0, 1, 0))
    low, high = cells(targets.boxes, features.shape[3], features.shape[2])
    (left, top), (right, bottom) = low.T, high.T
    image = targets.image_index
    inside = sums[image, :, bottom, right] - sums[image, :, top, right]
    inside = inside - sums[image, :, bottom, left] + sums[image, :, top, left]
    return inside / (high - low).prod(1, keepdim=True)


def _few(targets: Targets) -> Targets:
    if len(targets.boxes) <= MOST_OBJECTS:
        return targets
    taken = torch.linspace(0, len(targets.boxes) - 1, MOST_OBJECTS, device=targets.boxes.device).long()
    return Targets(targets.image_index[taken], targets.classes[taken], targets.boxes[taken])
