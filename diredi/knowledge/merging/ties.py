"""TIES: trim, elect a sign, average what agrees with it (Yadav et al., 2023, algorithm 1).

A weight that one site moved far is not diluted by sites that hardly moved it, nor cancelled by one that moved it a
little the other way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.knowledge.merging.base import MergeRecipe, parameters, per_weight, statistics
from diredi.knowledge.merging.mean import mean
from diredi.store.weights import Array, WeightMap


def ties(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Statistics are averaged: an elected sign of a variance means nothing."""
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
