"""Distillation losses by name. A new loss is one file here and one line in LOSSES."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from diredi.distillation.dissimilarity import MEASURES
from diredi.distillation.losses.base import DistillationBatch, Loss
from diredi.distillation.losses.features import ChannelWise, Hints, ScoredFeatures
from diredi.distillation.losses.fgd import FocalGlobal
from diredi.distillation.losses.relation import Angles, Distances
from diredi.distillation.losses.response import BoxDistributions, ClassScores, Dissimilarity, Logits, PseudoLabels

MakeLoss: TypeAlias = Callable[[Sequence[int], Sequence[int]], Loss]
"""From the channels of the student's and the teacher's neck, as `Loss` takes them."""

LOSSES: Final[dict[str, MakeLoss]] = {
    "class_scores": ClassScores,
    "logits": Logits,
    "boxes": BoxDistributions,
    **{measure: partial(Dissimilarity, measure) for measure in MEASURES},
    "pseudo_labels": PseudoLabels,
    "hints": Hints,
    "fgd": FocalGlobal,
    "cwd": ChannelWise,
    "scored_features": ScoredFeatures,
    "rkd_distance": Distances,
    "rkd_angle": Angles,
}
"""Distillation losses by the name that a `TrainRecipe` calls them; put your own beside them."""

__all__ = ["LOSSES", "DistillationBatch", "Loss", "MakeLoss"]
