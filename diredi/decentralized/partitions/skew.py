"""Peers with primary labels, of which they see more than others do, as far as `gamma` says.

Zhmoginov et al., "Decentralized Learning with Multi-Headed Distillation", CVPR 2023: a sample is 1 + gamma
times likelier to go to a peer that has its label as a primary one. At 0 all peers are alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diredi.decentralized.partitions.base import Indices, PartitionRecipe, Shares, assign_by_shares
from diredi.errors import InvalidInput


def skew(labels: Indices, peers: int, recipe: PartitionRecipe, random: np.random.Generator) -> list[Indices]:
    """Equal seeds deal equal primary labels to two splits in which the same labels occur."""
    kinds = len(np.unique(labels))
    weights = 1 + recipe.gamma * primary_labels(kinds, peers, recipe.primary, random).T
    shares: Shares = weights / weights.sum(axis=1, keepdims=True)
    return assign_by_shares(labels, lambda _: shares, recipe, random)


def primary_labels(labels: int, peers: int, primary: int | None, random: np.random.Generator) -> NDArray[np.bool_]:
    """peers x labels: who has which as primary. Peers have equally many, and so have labels, give or take one.

    Raises InvalidInput when a peer would need more primary labels than there are.
    """
    primary = -(-labels // peers) if primary is None else primary
    if primary > labels:
        raise InvalidInput(f"a peer cannot have {primary} primary labels of {labels}: lower partition.primary")
    dealt = np.zeros((peers, labels), np.bool_)
    np.put_along_axis(dealt, _deal_primary_labels(labels, peers, primary, random), True, axis=1)
    return dealt


def _deal_primary_labels(labels: int, peers: int, primary: int, random: np.random.Generator) -> Indices:
    """peers x primary: packs of all labels, each shuffled, dealt one after the other."""
    packs: list[Indices] = []
    pack = np.arange(labels)
    while len(packs) * labels < peers * primary:
        begun = len(packs) * labels % primary
        hand = pack[labels - begun :]
        fresh = random.permutation(labels)
        # The hand that the last pack began is completed by this one: with labels that it lacks.
        pack = fresh[np.argsort(np.isin(fresh, hand), kind="stable")]
        packs.append(pack)
    return np.concatenate(packs)[: peers * primary].reshape(peers, primary)
