"""The median of each weight over the sites (Yin et al., 2018, algorithm 1): less than half of them may lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.knowledge.merging.base import MergeRecipe, per_weight
from diredi.store.weights import WeightMap


def median(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Every site counts the same: a liar would say that it has many images."""
    return per_weight(gaps, lambda values: np.median(values, axis=0))
