"""Multi-headed distillation: peers exchange predictions on public images, and later heads learn from further peers.

Zhmoginov, Sandler, Miller, Kristiansen, Vladymyrov, "Decentralized Learning with Multi-Headed Distillation", CVPR 2023.
The main head learns private labels alone. Auxiliary heads form a chain: the first learns from the neighbours' main
heads, head k + 1 from their head k, so that it receives knowledge of peers that are k + 1 edges away. Peers send
predictions and embeddings of public, unlabelled images; no weights, no labels and no private images.

The paper's objective is L_k + sum over heads of the distance to the neighbours' heads of the level before, averaged
over public images. We had no access to its constants, its rule of confidence and its embedding term, so these are
options of `MultiHeadRecipe`.
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

_BATCH = 512


@dataclass(frozen=True)
class PublicPredictions:
    """One peer's predictions for the public images: everything that its neighbours receive."""

    probabilities: Tensor
    """Class probabilities of each head, the main head first, fp32 [heads, n, classes]."""
    embeddings: Tensor | None
    """fp32 [n, features]; None where they are not sent."""

    def select(self, indices: Tensor) -> PublicPredictions:
        """Select the predictions for the images at `indices`, int64 [m]."""
        embeddings = None if self.embeddings is None else self.embeddings[indices]
        return PublicPredictions(self.probabilities[:, indices], embeddings)

    def to(self, device: torch.device) -> PublicPredictions:
        """Move the predictions to a device."""
        embeddings = None if self.embeddings is None else self.embeddings.to(device)
        return PublicPredictions(self.probabilities.to(device), embeddings)


def predict_public(network: MultiHeadNetwork, images: Tensor) -> PublicPredictions:
    """Predict public images in eval mode.

    Args:
        network: The peer's network.
        images: uint8 [n, channels, height, width].

    Returns:
        Probabilities of all heads and embeddings, on the network's device.
    """
    with eval_mode(network), torch.no_grad():
        batches = [network(batch) for batch in torch.split(images.to(device_of(network)), _BATCH)]
    logits = torch.cat([torch.stack(batch.logits) for batch in batches], 1)
    return PublicPredictions(logits.softmax(-1), torch.cat([batch.embedding for batch in batches]))


def learn(
    peer: Peer,
    public: Tensor,
    neighbours: Sequence[PublicPredictions],
    recipe: MultiHeadRecipe,
    training: TrainingRecipe,
    round_: int,
) -> float:
    """Train a peer for one round, on its private labels and its neighbours' predictions.

    Each step takes a batch of private images and another of public images. Without neighbours the peer learns its
    labels alone.

    Args:
        peer: Its network is trained in place.
        public: The public images, uint8 [n, channels, height, width].
        neighbours: Each neighbour's predictions for `public`.
        recipe: The distillation loss.
        training: Epochs, batch size and optimiser.
        round_: Number of the round, which also seeds the batches.

    Returns:
        The mean loss of the last epoch.
    """
    rng, device = np.random.default_rng([peer.seed, round_, 1]), device_of(peer.network)
    public, neighbours = public.to(device), [predictions.to(device) for predictions in neighbours]

    def loss(indices: Tensor) -> Tensor:
        label_loss = F.cross_entropy(peer.network.logits(peer.images[indices], MAIN), peer.labels[indices])
        if not neighbours:
            return label_loss
        batch = torch.from_numpy(rng.choice(len(public), min(recipe.public_batch, len(public)), replace=False))
        outputs = peer.network(public[batch])
        return label_loss + distance(outputs, [predictions.select(batch) for predictions in neighbours], recipe)

    return peer.minimize(loss, training, [peer.network], round_)


def distance(outputs: NetworkOutputs, neighbours: Sequence[PublicPredictions], recipe: MultiHeadRecipe) -> Tensor:
    """Compute the distance of a peer to its neighbours on a batch of public images.

    Args:
        outputs: The peer's outputs for the batch.
        neighbours: Each neighbour's predictions for the batch; at least one.
        recipe: Dissimilarity, temperature, rule of confidence and weights of the terms.

    Returns:
        A scalar: the weighted sum of the distances of all auxiliary heads and of the embeddings.
    """
    chain = zip(outputs.logits[:-1], outputs.logits[1:], strict=True)
    heads = sum(
        (
            _head_distance(logits, before, _level_probabilities(neighbours, level), recipe)
            for level, (before, logits) in enumerate(chain)
        ),
        torch.zeros(()),
    )
    embedding = _embedding_distance(outputs.embedding, neighbours)
    return recipe.auxiliary_weight * heads + recipe.embedding_weight * embedding


def _level_probabilities(neighbours: Sequence[PublicPredictions], level: int) -> Tensor:
    """Stack the neighbours' heads of a level, fp32 [neighbours, n, classes]; the last head of one with fewer heads."""
    return torch.stack([each.probabilities[min(level, len(each.probabilities) - 1)] for each in neighbours])


def _head_distance(logits: Tensor, before: Tensor, theirs: Tensor, recipe: MultiHeadRecipe) -> Tensor:
    measure, own = MEASURES[recipe.measure], (logits / recipe.temperature).softmax(-1)
    if recipe.confidence == "most_confident":
        theirs = _most_confident(torch.cat([theirs, before.detach().softmax(-1)[None]]))[None]
    softened = (theirs.clamp(min=1e-12).log() / recipe.temperature).softmax(-1)
    return measure(own.expand_as(softened), softened).mean()


def _most_confident(probabilities: Tensor) -> Tensor:
    """Select for each sample the prediction with the highest maximum: [peers, n, classes] to [n, classes]."""
    best = probabilities.amax(-1).argmax(0)
    return probabilities[best, torch.arange(probabilities.shape[1], device=probabilities.device)]


def _embedding_distance(own: Tensor, neighbours: Sequence[PublicPredictions]) -> Tensor:
    """Mean squared distance of embeddings of length 1; neighbours whose embeddings have another size are left out."""
    theirs = [
        each.embeddings
        for each in neighbours
        if each.embeddings is not None and each.embeddings.shape[-1] == own.shape[-1]
    ]
    if not theirs:
        return torch.zeros(())
    difference = F.normalize(own, dim=-1) - F.normalize(torch.stack(theirs), dim=-1)
    return difference.square().sum(-1).mean()
