"""The partitions by label: how the samples of a labelled set become the private data of peers.

A partition is a `PartitionFunction`. `diredi.decentralized.partitions.partition_labels` checks the arguments and calls
it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diredi.decentralized.partitions.base import Indices, PartitionRecipe, Shares, assign_by_shares, split_by_sizes
from diredi.errors import InvalidInput


def iid(labels: Indices, peers: int, recipe: PartitionRecipe, random: np.random.Generator) -> list[Indices]:
    """Shuffle the samples and split them into parts whose sizes differ by one at most."""
    return [np.sort(part) for part in np.array_split(random.permutation(len(labels)), peers)]


def quantity(labels: Indices, peers: int, recipe: PartitionRecipe, random: np.random.Generator) -> list[Indices]:
    """Draw the peers' sizes from a Dirichlet distribution; their labels are alike.

    Li, Diao, Chen, He, "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022, quantity skew.
    Unlike there, each peer gets one sample first, since small concentrations would leave many peers without any.
    """
    shares = random.dirichlet(np.full(peers, recipe.concentration))
    return split_by_sizes(random.permutation(len(labels)), 1 + random.multinomial(len(labels) - peers, shares))


def dirichlet(labels: Indices, peers: int, recipe: PartitionRecipe, random: np.random.Generator) -> list[Indices]:
    """Draw the peers' shares of each label from a Dirichlet distribution.

    Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019. Hsu, Qi, Brown,
    "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019, draw the
    labels' shares of each peer instead, with peers of equal size; that cannot assign every sample.
    """
    concentrations = np.full(peers, recipe.concentration)
    return assign_by_shares(labels, lambda kinds: random.dirichlet(concentrations, size=kinds), recipe, random)


def skew(labels: Indices, peers: int, recipe: PartitionRecipe, random: np.random.Generator) -> list[Indices]:
    """Give each peer primary labels, of which it gets more samples than others.

    Zhmoginov et al., "Decentralized Learning with Multi-Headed Distillation", CVPR 2023: a sample is 1 + gamma times as
    likely to go to a peer that has its label as a primary label. With gamma 0 all peers are alike. Equal seeds give
    equal primary labels to two splits that contain the same labels.
    """
    kinds = len(np.unique(labels))
    weights = 1 + recipe.gamma * primary_labels(kinds, peers, recipe.primary, random).T
    shares: Shares = weights / weights.sum(axis=1, keepdims=True)
    return assign_by_shares(labels, lambda _: shares, recipe, random)


def primary_labels(labels: int, peers: int, primary: int | None, random: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the primary labels of each peer.

    Args:
        labels: Number of labels.
        peers: Number of peers.
        primary: Primary labels of each peer; None takes the fewest with which every label is primary somewhere.
        random: Source of randomness.

    Returns:
        Whether a peer has a label as primary, bool [peers, labels]. Each peer has `primary` labels; the numbers of
        peers that share a label differ by one at most.

    Raises:
        InvalidInput: A peer would need more primary labels than there are.
    """
    primary = -(-labels // peers) if primary is None else primary
    if primary > labels:
        raise InvalidInput(f"a peer cannot have {primary} primary labels of {labels}: lower partition.primary")
    is_primary = np.zeros((peers, labels), np.bool_)
    np.put_along_axis(is_primary, _deal_primary_labels(labels, peers, primary, random), True, axis=1)
    return is_primary


def _deal_primary_labels(labels: int, peers: int, primary: int, random: np.random.Generator) -> Indices:
    """Deal packs of all labels, each shuffled, one after the other: int64 [peers, primary]."""
    packs: list[Indices] = []
    pack = np.arange(labels)
    while len(packs) * labels < peers * primary:
        begun = len(packs) * labels % primary
        hand = pack[labels - begun :]
        fresh = random.permutation(labels)
        # This pack completes the hand that the last one began, so labels that the hand lacks come first.
        pack = fresh[np.argsort(np.isin(fresh, hand), kind="stable")]
        packs.append(pack)
    return np.concatenate(packs)[: peers * primary].reshape(peers, primary)
