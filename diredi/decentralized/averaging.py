"""Federated averaging of weight maps, without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.store.weights import Array, WeightMap


def average(weights: Sequence[WeightMap], samples: Sequence[float]) -> WeightMap:
    """Average weight maps, each weighted by its number of samples.

    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    Algorithm 1: sum_k n_k / n * w_k. It is computed as w_1 + sum_k n_k / n * (w_k - w_1), so that equal weights come
    out bit for bit as they are.

    Args:
        weights: At least one map; all must have the same names, shapes and dtypes.
        samples: Number of samples behind each map; their sum must not be 0.

    Returns:
        The mean. Integer arrays (batch norm's counters) are those of the first map.

    Raises:
        InvalidInput: The maps differ in names, shapes or dtypes.
    """
    first, others = weights[0], weights[1:]
    if not others:
        return first
    shares = [np.float32(count / sum(samples)) for count in samples[1:]]
    for other in others:
        first.check_same_schema(other)

    def mean(name: str, array: Array) -> Array:
        total = array.copy()
        for other, share in zip(others, shares, strict=True):
            total += (other[name] - array) * share
        return total

    return first.mapped(mean)
