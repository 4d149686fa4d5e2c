"""Rules that treat each gap as a task vector, so that what one site alone has learned is not diluted.

task_arithmetic  the sum of all gaps times a scale (Ilharco et al., 2023)
ties             trim, elect a sign, average what agrees with it (Yadav et al., 2023, algorithm 1)
dare             drop weights of each gap at random, rescale the rest, then add (Yu et al., 2024)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.knowledge.merging.base import MergeRecipe, parameters, per_weight, statistics
from diredi.knowledge.merging.mean import mean
from diredi.store.weights import Array, WeightMap


def task_arithmetic(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Return the sum of the gaps, scaled as the recipe says.

    The mean halves what only one of two sites has learned; the sum goes twice as far as any training went where both
    have learned the same. Without a scale the sum is made as long as the gaps are on average, which is neither: gaps
    that point the same way are averaged, n gaps at right angles to each other keep 1 / sqrt(n) of themselves.

    Batch-norm statistics are scaled with the weights before them, which is why they moved.
    """
    middle = mean(gaps, weights, recipe)
    return middle * _factor(middle, gaps, weights, recipe)


def _factor(middle: WeightMap, gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> float:
    if recipe.scale is not None:
        return recipe.scale * len(gaps)
    norm = parameters(middle).norm()
    length = sum(weight * parameters(gap).norm() for gap, weight in zip(gaps, weights, strict=True))
    return length / norm if norm > 0 else 1.0


def ties(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Return the mean of what agrees with the elected sign of each weight.

    A weight that one site moved far is not diluted by sites that hardly moved it, nor cancelled by one that moved it a
    little the other way. Statistics are averaged: an elected sign of a variance means nothing.
    """
    trimmed = [_trimmed(parameters(gap), recipe.keep) for gap in gaps]
    shares = np.array(weights)

    def agreed(values: Array) -> Array:
        share = shares.reshape(-1, *[1] * (values.ndim - 1))
        elected = np.sign((share * values).sum(0))
        share = share * ((np.sign(values) == elected) & (elected != 0))
        total = share.sum(0)
        return np.asarray((share * values).sum(0) / np.where(total > 0, total, 1))

    return WeightMap({**mean([statistics(gap) for gap in gaps], weights, recipe), **per_weight(trimmed, agreed)})


def _trimmed(gap: WeightMap, keep: float) -> WeightMap:
    """The largest `keep` of all weights of the gap; the rest is zero."""
    sizes = np.sort(np.abs(np.concatenate([array.ravel() for array in gap.values()])))
    least = sizes[min(round((1 - keep) * sizes.size), sizes.size - 1)]
    return gap.mapped(lambda _, array: np.where(np.abs(array) >= least, array, 0))


def dare(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Equal seeds drop equal weights. Statistics are kept whole: a dropped one belongs to no weights."""
    random = np.random.default_rng(recipe.seed)
    left = 1 - recipe.drop

    def dropped(_: str, array: Array) -> Array:
        return np.where(random.random(array.shape, np.float32) < left, array / array.dtype.type(left), 0)

    thinned = [WeightMap({**statistics(gap), **parameters(gap).mapped(dropped)}) for gap in gaps]
    return task_arithmetic(thinned, weights, recipe)
