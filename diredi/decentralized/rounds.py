"""Peers in one process learn from each other, round by round.

At first every peer learns its own labels. In each round that follows, a peer's auxiliary head learns from its labels
and from its neighbours: from their main heads in the first round, then from their auxiliary heads as the round before
has left them. One round is the one-shot protocol of Molo et al., SISAP 2024; several are its iterative form (FGCS 176,
2025).

Neighbours answer for the receiver's own private images, as in the papers: their weights have to travel for that, or the
images would.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch

from diredi.decentralized.network import MAIN, MultiHeaded
from diredi.decentralized.peer import InTraining, Neighbours, Peer, Remembered, answers
from diredi.decentralized.recipe import DistillationRecipe, TrainingRecipe

AUXILIARY = 1


def distilled(
    peers: Sequence[Peer],
    neighbours: Sequence[Mapping[int, Sequence[int]]],
    recipe: DistillationRecipe,
    training: TrainingRecipe,
) -> None:
    """Rounds of peers that have learned their labels: `neighbours` says for each round who listens to whom.

    Within a round all listen to what the others were before it, so their order is of no matter.
    """
    for number, graph in enumerate(neighbours, start=1):
        before = [copy.deepcopy(peer.network) for peer in peers]
        asked = MAIN if number == 1 else AUXILIARY
        for index, peer in enumerate(peers):
            theirs = _neighbours(peer, [before[other] for other in graph[index]], asked, recipe)
            peer.learn_from(theirs, recipe, training, AUXILIARY, number)


def _neighbours(
    peer: Peer, networks: Sequence[MultiHeaded], head: int, recipe: DistillationRecipe
) -> Neighbours | None:
    if not networks or recipe.alpha == 1:
        return None
    if recipe.mode == "reference_code":
        return InTraining([(copy.deepcopy(network), head) for network in networks], peer.images)
    return Remembered(torch.stack([answers(network, peer.images, head) for network in networks]))
