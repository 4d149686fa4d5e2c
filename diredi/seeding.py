"""What is drawn from torch's generator, which a whole process shares, as one seed says and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_GENERATOR = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Weights that are made inside are those of `seed`, also where another thread makes its own; outside the generator
    goes on as if nothing had been drawn. For what takes moments: others wait."""
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
