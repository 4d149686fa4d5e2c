"""Rules that a site which lies cannot lead wherever it likes; `AGAINST_LIARS` names them.

median        each weight is the middle one of all sites' (Yin et al., 2018, algorithm 1): less than half may lie
trimmed_mean  the mean of each weight without the largest and smallest sites (Yin et al., 2018, algorithm 1)
clipped_mean  the mean of gaps that are made no longer than most (Sun et al., 2019): no site goes further than others.
              It bounds what a liar can do; it does not tell a liar, who may well send a gap of an honest length
krum          the one gap that is nearest to its neighbours (Blanchard et al., 2017): it picks, it does not mix
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.errors import InvalidInput
from diredi.knowledge.merging.base import MergeRecipe, parameters, per_weight, statistics
from diredi.knowledge.merging.mean import mean
from diredi.store.weights import WeightMap


def median(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Every site counts the same: a liar would say that it has many images."""
    return per_weight(gaps, lambda values: np.median(values, axis=0))


def trimmed_mean(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Every site counts the same. Of two gaps nothing can be left out: it is their mean."""
    out = max(int(recipe.trim * len(gaps)), 1) if len(gaps) > 2 else 0
    return per_weight(gaps, lambda values: np.sort(values, axis=0)[out : len(gaps) - out].mean(axis=0))


def clipped_mean(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Parameters and statistics have units of their own, so each is clipped by its own length."""
    parts = [_clipped([part(gap) for gap in gaps], recipe.clip) for part in (parameters, statistics)]
    return mean([WeightMap({**a, **b}) for a, b in zip(*parts, strict=True)], weights, recipe)


def _clipped(gaps: Sequence[WeightMap], clip: float) -> list[WeightMap]:
    norms = [gap.norm() for gap in gaps]
    longest = clip * float(np.median(norms))
    return [gap if norm <= longest else gap * (longest / norm) for gap, norm in zip(gaps, norms, strict=True)]


def krum(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """The gap with the least sum of squared distances to the n - f - 2 nearest others, f liars among n sites."""
    liars, fewest = recipe.byzantine, 2 * recipe.byzantine + 3
    if len(gaps) < fewest:
        raise InvalidInput(
            f"krum with {liars} liars needs {fewest} gaps and there are {len(gaps)}: invite more sites, "
            "lower merge.byzantine, or use another merge.method"
        )
    distances = np.array([[(a - b).norm() ** 2 for b in gaps] for a in gaps])
    nearest = np.sort(distances, axis=1)[:, 1 : len(gaps) - liars - 1]  # the first is the gap itself
    return gaps[int(nearest.sum(axis=1).argmin())]
