"""Images as the cloud has them: presumed ones with their labels, public ones without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diredi.data.dataset import Sample
from diredi.distillation.batches import Pool
from diredi.knowledge.image_sources.base import Stock, drawn


def presumed(stock: Stock, count: int) -> Pool:
    """Draw presumed images with their labels."""
    return Pool(drawn(stock.presumed, count, stock.random("presumed")), stock.labelled)


def public(stock: Stock, count: int) -> Pool:
    """The teacher alone speaks about these."""
    return unlabelled(drawn(stock.pool(), count, stock.random("pool")))


def unlabelled(samples: Sequence[Sample]) -> Pool:
    """Return a pool of images whose labels say nothing, so that only a teacher does."""
    nothing = np.zeros((0, 5), np.float32)
    return Pool([replace(sample, boxes=nothing) for sample in samples], frozenset())
