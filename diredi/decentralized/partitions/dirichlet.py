"""Peers unlike in what they see: of every label, the peers' shares come from a Dirichlet distribution.

Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019. Hsu, Qi, Brown, "Measuring
the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019, draw the labels' shares of
each peer instead, all peers of one size, which cannot be kept to when every sample is to be dealt.
"""

from __future__ import annotations

import numpy as np

from diredi.decentralized.partitions.base import Indices, PartitionRecipe, assign_by_shares


def dirichlet(labels: Indices, peers: int, recipe: PartitionRecipe, random: np.random.Generator) -> list[Indices]:
    concentrations = np.full(peers, recipe.concentration)
    return assign_by_shares(labels, lambda kinds: random.dirichlet(concentrations, size=kinds), recipe, random)
