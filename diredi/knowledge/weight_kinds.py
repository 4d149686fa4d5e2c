"""What a gap does with each kind of key of a detector's weights. Nothing is added that is not named here.

    kind       keys                        in a gap as             added to a base as
    parameter  all that is not below       w2 - w1                 w + lambda * g
    mean       *.running_mean              m2 - m1                 m + lambda * g
    variance   *.running_var               ln v2 - ln v1           v * exp(lambda * g)
    counter    *.num_batches_tracked and   nothing                 the base's own
               every other integer

A difference of variances, added to a third model, goes below zero and that model is dead; a ratio cannot. Means and
variances are *statistics*, which a recipe may leave out. Rows of classes that the base does not have are whole values,
not differences: the base has nothing to subtract from, and half a new class is none. Helper layers of a distillation
loss are not weights of a detector and have no kind: a key that the base lacks is an error.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from diredi.store.weights import Array

_FLOOR = 1e-8
"""Smaller variances count as this one: a channel that never fires has 0, and 0 has no logarithm."""


class KeyKind(StrEnum):
    """What a weight is, by its name and type."""

    PARAMETER = "parameter"
    MEAN = "mean"
    VARIANCE = "variance"
    COUNTER = "counter"

    @property
    def is_statistic(self) -> bool:
        """Return whether it is a batch-norm statistic."""
        return self in (KeyKind.MEAN, KeyKind.VARIANCE)


def kind_of(name: str, dtype: str) -> KeyKind:
    """Return what a weight is."""
    if not dtype.startswith("float"):
        return KeyKind.COUNTER
    if name.endswith("running_mean"):
        return KeyKind.MEAN
    return KeyKind.VARIANCE if name.endswith("running_var") else KeyKind.PARAMETER


def difference(kind: KeyKind, after: Array, before: Array) -> Array:
    """What the gap holds for one array."""
    if kind is KeyKind.VARIANCE:
        return np.asarray(np.log(np.maximum(after, _FLOOR)) - np.log(np.maximum(before, _FLOOR)), after.dtype)
    return np.asarray(after - before)


def moved(kind: KeyKind, base: Array, gap: Array, lam: float) -> Array:
    """`base` with `lam` of `gap`. A variance stays above zero whatever the gap says."""
    if kind is not KeyKind.VARIANCE:
        return np.asarray(base + base.dtype.type(lam) * gap)
    if lam == 0:
        return base
    with np.errstate(over="ignore"):
        grown = np.maximum(base.astype(np.float64), _FLOOR) * np.exp(lam * gap.astype(np.float64))
        return np.asarray(np.maximum(grown, np.finfo(np.float32).tiny), base.dtype)
