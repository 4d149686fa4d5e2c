"""Krum: the one gap that is nearest to its neighbours (Blanchard et al., 2017). It picks, it does not mix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.errors import InvalidInput
from diredi.knowledge.merging.base import MergeRecipe
from diredi.store.weights import WeightMap


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
