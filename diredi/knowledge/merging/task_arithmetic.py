"""Task arithmetic: the sum of all gaps times a scale (Ilharco et al., 2023).

The mean halves what only one of two sites has learned; the sum goes twice as far as any training went where both have
learned the same. Without a scale the sum is made as long as the gaps are on average, which is neither: gaps that point
the same way are averaged, n gaps at right angles to each other keep 1 / sqrt(n) of themselves.

Batch-norm statistics are averaged: they say what a layer's inputs are like, and the inputs of a tutor for two sites lie
between those of the two, not at their sum.
"""

from __future__ import annotations

from collections.abc import Sequence

from diredi.knowledge.merging.base import MergeRecipe, parameters, statistics
from diredi.knowledge.merging.mean import mean
from diredi.store.weights import WeightMap


def task_arithmetic(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    middle = mean(gaps, weights, recipe)
    return scaled(middle, gaps, weights, recipe)


def scaled(middle: WeightMap, gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """`middle`, a mean of `gaps` by some method, as long as the recipe wants it; its statistics as they are."""
    moved = parameters(middle)
    if recipe.scale is not None:
        factor = recipe.scale * len(gaps)
    else:
        length = sum(weight * parameters(gap).norm() for gap, weight in zip(gaps, weights, strict=True))
        factor = length / moved.norm() if moved.norm() > 0 else 1.0
    return WeightMap({**statistics(middle), **(moved * factor)})
