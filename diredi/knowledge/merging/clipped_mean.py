"""The mean of gaps that are made no longer than most (Sun et al., 2019): no site goes further than others.

It bounds what a liar can do; it does not tell a liar, who may well send a gap of an honest length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.knowledge.merging.base import MergeRecipe, parameters, statistics
from diredi.knowledge.merging.mean import mean
from diredi.store.weights import WeightMap


def clipped_mean(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Parameters and statistics have units of their own, so each is clipped by its own length."""
    parts = [_clipped([part(gap) for gap in gaps], recipe.clip) for part in (parameters, statistics)]
    return mean([WeightMap({**a, **b}) for a, b in zip(*parts, strict=True)], weights, recipe)


def _clipped(gaps: Sequence[WeightMap], clip: float) -> list[WeightMap]:
    norms = [gap.norm() for gap in gaps]
    longest = clip * float(np.median(norms))
    return [gap if norm <= longest else gap * (longest / norm) for gap, norm in zip(gaps, norms, strict=True)]
