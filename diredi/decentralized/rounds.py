"""Peers in one process learn from each other, round by round.

At first every peer learns its own labels. In each round that follows, a peer's auxiliary head learns from its labels
and from its neighbours: from their main heads in the first round, then from their auxiliary heads as the round before
has left them. One round is the one-shot protocol of Molo et al., SISAP 2024; several are its iterative form (FGCS 176,
2025).

Neighbours answer for the receiver's own private images, as in the papers: their weights have to travel for that, or the
images would.

With `EarlyStopping` a peer that has had enough learns no more, and goes on teaching with what it knows.
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


@dataclass(frozen=True)
class EarlyStopping:
    """Meta early stopping (see `diredi.decentralized.early_stopping`), which looks at every peer's validation data."""

    recipe: StoppingRecipe
    validation: Sequence[LabelledImages]
    """Of each peer, its own."""


def distil(
    peers: Sequence[Peer],
    neighbours: Sequence[Mapping[int, Sequence[int]]],
    recipe: DistillationRecipe,
    training: TrainingRecipe,
    stopping: EarlyStopping | None = None,
) -> list[MetaStopping]:
    """Rounds of peers that have learned their labels: `neighbours` says for each round who listens to whom.

    Within a round all listen to what the others were before it, so their order is of no matter. With `stopping` the
    answer is what it says of each peer, without it nothing; rounds that nobody would learn in are left out.
    """
    watched = [MetaStopping(recipe=stopping.recipe) for _ in peers] if stopping else []
    for number, graph in enumerate(neighbours, start=1):
        learning = [index for index in range(len(peers)) if not watched or watched[index].reason is None]
        before = [copy.deepcopy(peer.network) for peer in peers] if learning else []
        asked = MAIN if number == 1 else AUXILIARY
        for index in learning:
            theirs = _neighbours(peers[index], [before[other] for other in graph[index]], asked, recipe)
            peers[index].learn_from_neighbours(theirs, recipe, training, AUXILIARY, number)
            if stopping:
                losses = {other: _loss(peers[index], stopping.validation[other]) for other in (index, *graph[index])}
                watched[index] = watched[index].after_round(
                    losses.pop(index), mean(losses.values()) if losses else None
                )
    return watched


def _loss(peer: Peer, data: LabelledImages) -> float:
    """Mean cross-entropy of its auxiliary head."""
    logits = peer.predict_logits(torch.from_numpy(data.images), AUXILIARY)
    return float(F.cross_entropy(logits, torch.from_numpy(data.labels).to(logits.device)))


def _neighbours(
    peer: Peer, networks: Sequence[MultiHeadNetwork], head: int, recipe: DistillationRecipe
) -> NeighbourLogits | None:
    if not networks or recipe.alpha == 1:
        return None
    if recipe.mode == "reference_code":
        return TrainModeLogits([(copy.deepcopy(network), head) for network in networks], peer.images)
    return CachedLogits(torch.stack([predict_logits(network, peer.images, head) for network in networks]))
