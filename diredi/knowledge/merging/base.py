"""What a merge is given, what it may be told, and the shape that every method has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from diredi.config import Config
from diredi.knowledge.gap import Gap
from diredi.knowledge.weight_kinds import kind_of
from diredi.store.weights import Array, WeightMap


class MergeRecipe(Config):
    """How the gaps of several sites become one. What a method does not name it does not read."""

    method: str = "union"
    """The method, by its name in `diredi.knowledge.merging.MERGES`."""
    batch_norm: Literal["gap", "re-estimate"] = "re-estimate"
    """The batch-norm statistics of what came from more than one site: merged as weights are, or estimated again on
    presumed images."""
    scale: float | None = Field(default=None, gt=0, le=2)
    """task_arithmetic and dare: the factor of the sum. None makes the sum as long as the gaps are on average."""
    keep: float = Field(default=0.2, gt=0, le=1)
    """ties: the share of each gap's weights that is kept, the largest."""
    drop: float = Field(default=0.5, ge=0, lt=1)
    """dare: the probability that a weight of a gap is dropped."""
    trim: float = Field(default=0.2, ge=0, lt=0.5)
    """trimmed_mean: the share of the gaps that is left out at each end. It is at least one gap if there are three or
    more."""
    clip: float = Field(default=1.0, gt=0)
    """clipped_mean: the longest that a gap may be, as a multiple of the median length."""
    byzantine: int = Field(default=1, ge=0)
    """krum: how many of the sites may send false gaps."""
    seed: int = 0
    """dare: the seed that decides which weights are dropped."""


@dataclass(frozen=True)
class Contribution:
    """A site's gap and the number of images that taught it, which is its weight."""

    site: str
    """Name of the site."""
    gap: Gap
    """The gap of its tutor, or of its student."""
    images: int
    """Training images of the site (`Gaps.metrics.train_images`)."""


class Merge(Protocol):
    """One change of weights from those of several sites, with equal keys and shapes. Pure.

    `weights` are above zero and add up to 1. Raises InvalidInput for fewer gaps than the method can work with.
    """

    def __call__(self, gaps: Sequence[WeightMap], weights: Sequence[float], recipe: MergeRecipe) -> WeightMap:
        """Merge the gaps, each with its weight."""


def per_weight(gaps: Sequence[WeightMap], combine: Callable[[Array], Array]) -> WeightMap:
    """`combine` turns the values of all gaps for one key (gaps x shape) into one (shape)."""
    return gaps[0].mapped(lambda name, array: np.asarray(combine(np.stack([gap[name] for gap in gaps])), array.dtype))


def parameters(gap: WeightMap) -> WeightMap:
    """Return the entries of a gap that are trained, without batch-norm statistics."""
    return gap.selected(lambda name: not kind_of(name, "float32").is_statistic)


def statistics(gap: WeightMap) -> WeightMap:
    """Batch-norm means and logarithms of ratios of variances."""
    return gap.selected(lambda name: kind_of(name, "float32").is_statistic)
