"""The mean of several peers' weights: federated averaging (McMahan et al., AISTATS 2017, Algorithm 1). No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diredi.store.weights import Array, WeightMap


def average(weights: Sequence[WeightMap], samples: Sequence[float]) -> WeightMap:
    """Weighted by `samples`; counters (integers) are the first one's. Equal weights come out bit for bit as they are.

    Raises InvalidInput where schemas differ. `weights` must not be empty, `samples` not add up to 0.
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
