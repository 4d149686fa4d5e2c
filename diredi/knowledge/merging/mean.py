"""The mean weighted by images: what federated averaging does with updates (McMahan et al., 2017, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

from diredi.knowledge.merging.base import MergeRecipe
from diredi.store.weights import WeightMap


def mean(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Summed as distances from the first gap, so that equal gaps come out bit for bit as they are."""
    first = merged = gaps[0]
    for gap, weight in zip(gaps[1:], weights[1:], strict=True):
        merged = merged + (gap - first) * weight
    return merged
