"""DARE: drop weights of each gap at random, rescale the rest, then add (Yu et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.knowledge.merging.base import MergeRecipe, parameters, statistics
from diredi.knowledge.merging.task_arithmetic import task_arithmetic
from diredi.store.weights import Array, WeightMap


def dare(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Equal seeds drop equal weights. Statistics are kept whole: a dropped one belongs to no weights."""
    random = np.random.default_rng(recipe.seed)
    left = 1 - recipe.drop

    def dropped(_: str, array: Array) -> Array:
        return np.where(random.random(array.shape, np.float32) < left, array / array.dtype.type(left), 0)

    thinned = [WeightMap({**statistics(gap), **parameters(gap).mapped(dropped)}) for gap in gaps]
    return task_arithmetic(thinned, weights, recipe)
