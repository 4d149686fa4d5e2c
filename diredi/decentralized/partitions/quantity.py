"""Peers alike in what they see and unlike in how much: sizes from a Dirichlet distribution (Li et al., "Federated
Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022, quantity skew)."""

from __future__ import annotations

import numpy as np

from diredi.decentralized.partitions.base import Indices, PartitionRecipe, split_by_sizes


def quantity(labels: Indices, peers: int, recipe: PartitionRecipe, random: np.random.Generator) -> list[Indices]:
    """Everybody gets one sample before the rest is dealt: small concentrations would leave many with none."""
    shares = random.dirichlet(np.full(peers, recipe.concentration))
    return split_by_sizes(random.permutation(len(labels)), 1 + random.multinomial(len(labels) - peers, shares))
