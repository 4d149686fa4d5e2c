"""Rounds of mutual distillation between peers in one process.

Each peer has learned its own labels. In a round a peer's auxiliary head learns from its labels and from its neighbours:
from their main heads in the first round, then from their auxiliary heads as the round before has left them. One round
is the one-shot protocol of Molo et al., SISAP 2024; several rounds are its iterative form (FGCS 176, 2025).

As in the papers, neighbours predict the receiver's own private images: in a deployment their weights have to travel for
that, or the images would.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
import torch.nn.functional as F

from diredi.data.classification.base import LabelledImages
from diredi.decentralized.early_stopping import MetaStopping, StoppingRecipe
from diredi.decentralized.network import MAIN, MultiHeadNetwork
from diredi.decentralized.peer import CachedLogits, NeighbourLogits, Peer, TrainModeLogits, predict_logits
from diredi.decentralized.recipe import DistillationRecipe, TrainingRecipe

AUXILIARY = 1
"""Index of the auxiliary head that learns from neighbours."""


@dataclass(frozen=True)
class EarlyStopping:
    """Options of meta early stopping, which uses every peer's validation data.

    See `diredi.decentralized.early_stopping`. A peer that has stopped learns no more and goes on teaching.
    """

    recipe: StoppingRecipe
    validation: Sequence[LabelledImages]
    """Each peer's validation data."""


def distil(
    peers: Sequence[Peer],
    neighbours: Sequence[Mapping[int, Sequence[int]]],
    recipe: DistillationRecipe,
    training: TrainingRecipe,
    stopping: EarlyStopping | None = None,
) -> list[MetaStopping]:
    """Let peers that have learned their labels learn from each other.

    Within a round each peer learns from the others as they were before it, so the order of the peers does not matter.

    Args:
        peers: Their networks are trained in place.
        neighbours: For each round, the indices of each peer's neighbours.
        recipe: The distillation loss.
        training: Epochs, batch size and optimiser of a round.
        stopping: Stop each peer once it gains nothing more from its neighbours. Rounds in which no peer would learn are
            left out.

    Returns:
        The state of early stopping for each peer; an empty list without `stopping`.
    """
    states = [MetaStopping(recipe=stopping.recipe) for _ in peers] if stopping else []
    for number, graph in enumerate(neighbours, start=1):
        learning = [index for index in range(len(peers)) if not states or states[index].reason is None]
        before = [copy.deepcopy(peer.network) for peer in peers] if learning else []
        head = MAIN if number == 1 else AUXILIARY
        for index in learning:
            theirs = _neighbour_logits(peers[index], [before[other] for other in graph[index]], head, recipe)
            peers[index].learn_from_neighbours(theirs, recipe, training, AUXILIARY, number)
            if stopping:
                losses = {other: _loss(peers[index], stopping.validation[other]) for other in (index, *graph[index])}
                own = losses.pop(index)
                states[index] = states[index].after_round(own, mean(losses.values()) if losses else None)
    return states


def _loss(peer: Peer, data: LabelledImages) -> float:
    """Compute the mean cross-entropy of a peer's auxiliary head."""
    logits = peer.predict_logits(torch.from_numpy(data.images), AUXILIARY)
    return float(F.cross_entropy(logits, torch.from_numpy(data.labels).to(logits.device)))


def _neighbour_logits(
    peer: Peer, networks: Sequence[MultiHeadNetwork], head: int, recipe: DistillationRecipe
) -> NeighbourLogits | None:
    if not networks or recipe.alpha == 1:
        return None
    if recipe.mode == "reference_code":
        return TrainModeLogits([(copy.deepcopy(network), head) for network in networks], peer.images)
    return CachedLogits(torch.stack([predict_logits(network, peer.images, head) for network in networks]))
