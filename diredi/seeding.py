"""Reproducible random numbers from torch's generator, which all threads of a process share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_GENERATOR = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator for a block, guarded by a process-wide lock.

    After the block the generator goes on as if nothing had been drawn. Other threads that enter such a block wait, so
    use it only for work of moments, such as making a network's first weights.

    Args:
        seed: Seed of what is drawn inside the block.

    Examples:
        >>> with seeded(0):
        ...     first = torch.rand(2)
        >>> with seeded(0):
        ...     bool((first == torch.rand(2)).all())
        True
    """
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
