"""Multi-headed distillation: neighbours meet on public images alone, and knowledge travels one head further a round.

Zhmoginov, Sandler, Miller, Kristiansen, Vladymyrov: "Decentralized Learning with Multi-Headed Distillation", CVPR
2023. The main head learns private labels and nothing else. Auxiliary heads form a chain: the first learns from the
neighbours' main heads, head k + 1 from their head k, so that it hears of peers that are k + 1 edges away. What travels
is what heads say of public, unlabelled images, and embeddings of these; no weight, no label and no private image.

The paper's objective is L_k + sum over heads of the distance to the neighbours' heads of the level before, averaged
over public images; its constants, its rule of confidence and its embedding term could not be read: here they are
options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diredi.decentralized.network import MAIN, MultiHeadNetwork, NetworkOutputs
from diredi.decentralized.peer import Peer, device_of, eval_mode
from diredi.decentralized.recipe import MultiHeadRecipe, TrainingRecipe
from diredi.distillation.dissimilarity import MEASURES

_AT_ONCE = 512


@dataclass(frozen=True)
class PublicPredictions:
    """What one peer says of public images: all of it that another one may see."""

    probabilities: Tensor
    """fp32 [heads, n, classes], the main head first."""
    embeddings: Tensor | None
    """fp32 [n, features]."""

    def select(self, indices: Tensor) -> PublicPredictions:
        """Of some of the images."""
        return PublicPredictions(
            self.probabilities[:, indices], None if self.embeddings is None else self.embeddings[indices]
        )

    def to(self, device: torch.device) -> PublicPredictions:
        return PublicPredictions(
            self.probabilities.to(device), None if self.embeddings is None else self.embeddings.to(device)
        )


def predict_public(network: MultiHeadNetwork, images: Tensor) -> PublicPredictions:
    """In eval mode; `images` uint8 [n, channels, height, width]."""
    with eval_mode(network), torch.no_grad():
        parts = [network(some) for some in torch.split(images.to(device_of(network)), _AT_ONCE)]
    logits = torch.cat([torch.stack(part.logits) for part in parts], 1)
    return PublicPredictions(logits.softmax(-1), torch.cat([part.embedding for part in parts]))


def learn(
    peer: Peer,
    public: Tensor,
    neighbours: Sequence[PublicPredictions],
    recipe: MultiHeadRecipe,
    training: TrainingRecipe,
    round_: int,
) -> float:
    """One round: private labels and, of the same number of public images a step, what neighbours have said of them.

    `public` uint8 [n, channels, height, width]. Without neighbours the peer learns its labels alone. The mean loss of
    the last epoch.
    """
    rng, device = np.random.default_rng([peer.seed, round_, 1]), device_of(peer.network)
    public, neighbours = public.to(device), [one.to(device) for one in neighbours]

    def loss(indices: Tensor) -> Tensor:
        private = F.cross_entropy(peer.network.logits(peer.images[indices], MAIN), peer.labels[indices])
        if not neighbours:
            return private
        some = torch.from_numpy(rng.choice(len(public), min(recipe.public_batch, len(public)), replace=False))
        outputs = peer.network(public[some])
        return private + distance(outputs, [one.select(some) for one in neighbours], recipe)

    return peer.minimize(loss, training, [peer.network], round_)


def distance(outputs: NetworkOutputs, neighbours: Sequence[PublicPredictions], recipe: MultiHeadRecipe) -> Tensor:
    """How far a peer is from its neighbours on a batch of public images, a scalar."""
    chain = zip(outputs.logits[:-1], outputs.logits[1:], strict=True)
    heads = sum(
        (
            _head_distance(mine, before, _level_probabilities(neighbours, level), recipe)
            for level, (before, mine) in enumerate(chain)
        ),
        torch.zeros(()),
    )
    return recipe.auxiliary_weight * heads + recipe.embedding_weight * _embedding_distance(
        outputs.embedding, neighbours
    )


def _level_probabilities(neighbours: Sequence[PublicPredictions], level: int) -> Tensor:
    """What the neighbours' heads of a level say, fp32 [neighbours, n, classes]; of one with fewer heads, its last."""
    return torch.stack([one.probabilities[min(level, len(one.probabilities) - 1)] for one in neighbours])


def _head_distance(logits: Tensor, before: Tensor, theirs: Tensor, recipe: MultiHeadRecipe) -> Tensor:
    measure, mine = MEASURES[recipe.measure], (logits / recipe.temperature).softmax(-1)
    if recipe.confidence == "most_confident":
        theirs = _most_confident(torch.cat([theirs, before.detach().softmax(-1)[None]]))[None]
    softened = (theirs.clamp(min=1e-12).log() / recipe.temperature).softmax(-1)
    return measure(mine.expand_as(softened), softened).mean()


def _most_confident(said: Tensor) -> Tensor:
    """For each sample the row of `said`, fp32 [speakers, n, classes], whose highest probability is highest."""
    best = said.amax(-1).argmax(0)
    return said[best, torch.arange(said.shape[1], device=said.device)]


def _embedding_distance(mine: Tensor, neighbours: Sequence[PublicPredictions]) -> Tensor:
    """Mean squared distance of embeddings of length 1. Neighbours whose embeddings have another size say nothing
    here."""
    theirs = [
        one.embeddings
        for one in neighbours
        if one.embeddings is not None and one.embeddings.shape[-1] == mine.shape[-1]
    ]
    if not theirs:
        return torch.zeros(())
    apart = F.normalize(mine, dim=-1) - F.normalize(torch.stack(theirs), dim=-1)
    return apart.square().sum(-1).mean()
