"""Task arithmetic: the sum of all gaps times a scale (Ilharco et al., 2023).

The mean halves what only one of two sites has learned; the sum goes twice as far as any training went where both have
learned the same. Without a scale the sum is made as long as the gaps are on average, which is neither: gaps that point
the same way are averaged, n gaps at right angles to each other keep 1 / sqrt(n) of themselves.

Batch-norm statistics are scaled with the weights before them, which is why they moved.
"""

from __future__ import annotations

from collections.abc import Sequence

from diredi.knowledge.merging.base import MergeRecipe, parameters
from diredi.knowledge.merging.mean import mean
from diredi.store.weights import WeightMap


def task_arithmetic(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Return the sum of the gaps, scaled as the recipe says."""
    middle = mean(gaps, weights, recipe)
    return middle * _factor(middle, gaps, weights, recipe)


def _factor(middle: WeightMap, gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> float:
    if recipe.scale is not None:
        return recipe.scale * len(gaps)
    norm = parameters(middle).norm()
    length = sum(weight * parameters(gap).norm() for gap, weight in zip(gaps, weights, strict=True))
    return length / norm if norm > 0 else 1.0
