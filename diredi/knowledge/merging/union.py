"""The union of what the sites want of each weight: the largest rise that any of them wants, plus the largest fall.

    merged = max(0, g_1, ..., g_n) + min(0, g_1, ..., g_n)

What one site alone has learned comes whole, where the mean gives each of n sites an n-th of it. What all have learned
comes once, where the sum brings it n times. Where they disagree their wishes are added. `task_arithmetic` and `ties`
are after the same, not to dilute; this one has nothing to tune, and one gap alone, and n equal ones, come out as they
are.
"""

from __future__ import annotations

from collections.abc import Sequence

from diredi.knowledge.merging.base import MergeRecipe, per_weight
from diredi.store.weights import WeightMap


def union(gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
    """Every site counts the same: a class of which there are few images is as new as any other.

    Statistics are treated alike: they moved because the weights before them did.
    """
    return per_weight(gaps, lambda values: values.max(axis=0, initial=0) + values.min(axis=0, initial=0))
