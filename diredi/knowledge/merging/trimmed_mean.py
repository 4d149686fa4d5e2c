"""The mean of each weight without the largest and smallest sites (Yin et al., 2018, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.knowledge.merging.base import MergeRecipe, per_weight
from diredi.store.weights import WeightMap


def trimmed_mean(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Every site counts the same. Of two gaps nothing can be left out: it is their mean."""
    out = max(int(recipe.trim * len(gaps)), 1) if len(gaps) > 2 else 0
    return per_weight(gaps, lambda values: np.sort(values, axis=0)[out : len(gaps) - out].mean(axis=0))
