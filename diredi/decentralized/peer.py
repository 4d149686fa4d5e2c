"""A peer: a network with a main head and auxiliary heads, its private data, and how it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diredi.data.classification.base import LabelledImages
from diredi.decentralized import distillation
from diredi.decentralized.network import MAIN, MultiHeadNetwork
from diredi.decentralized.recipe import DistillationRecipe, TrainingRecipe

BatchLoss = Callable[[Tensor], Tensor]
"""Computes the loss of a batch, given the indices of its samples, int64 [n]."""
_BATCH = 512


class NeighbourLogits(Protocol):
    """A function that gives the neighbours' logits for a peer's samples."""

    def __call__(self, indices: Tensor) -> Tensor:
        """Return logits without gradient, fp32 [neighbours, n, classes].

        Args:
            indices: Indices of the peer's samples, int64 [n].
        """
        ...


@dataclass(frozen=True)
class CachedLogits:
    """Neighbours' logits for all samples of a peer, computed once in eval mode."""

    logits: Tensor
    """fp32 [neighbours, samples, classes]."""

    def __call__(self, indices: Tensor) -> Tensor:
        """Select the logits of a batch."""
        return self.logits[:, indices]


@dataclass(frozen=True)
class TrainModeLogits:
    """Neighbours' logits computed in train mode for each batch, as the reference code does.

    A prediction then depends on its batch, and the neighbours' batch-norm statistics change with each call.
    """

    networks: Sequence[tuple[MultiHeadNetwork, int]]
    """Each neighbour's network, and the head that is asked. They are changed: pass copies."""
    images: Tensor
    """The peer's images, uint8 [samples, channels, height, width]."""

    def __call__(self, indices: Tensor) -> Tensor:
        """Compute the logits of a batch."""
        images = self.images[indices]
        with torch.no_grad():
            return torch.stack([network.train().logits(images, head) for network, head in self.networks])


class Peer:
    """A learner that shares predictions or weights, and never its private data.

    Args:
        name: Name of the peer.
        network: Trained in place, on the device where it is. Images and labels are copied there.
        data: The private images and labels.
        seed: Seeds the order of batches.
    """

    def __init__(self, name: str, network: MultiHeadNetwork, data: LabelledImages, seed: int) -> None:
        self.name, self.network, self.seed = name, network, seed
        device = device_of(network)
        self.images, self.labels = torch.from_numpy(data.images).to(device), torch.from_numpy(data.labels).to(device)

    def learn_labels(self, recipe: TrainingRecipe, round_: int = 0) -> float:
        """Train backbone and main head on the peer's own labels.

        Args:
            recipe: Epochs, batch size and optimiser.
            round_: Number of the round, which also seeds the batches.

        Returns:
            The mean loss of the last epoch.
        """

        def label_loss(indices: Tensor) -> Tensor:
            return F.cross_entropy(self.network.logits(self.images[indices], MAIN), self.labels[indices])

        return self.minimize(label_loss, recipe, [self.network.backbone, self.network.heads[MAIN]], round_)

    def learn_from_neighbours(
        self,
        neighbours: NeighbourLogits | None,
        recipe: DistillationRecipe,
        training: TrainingRecipe,
        head: int = 1,
        round_: int = 0,
    ) -> float:
        """Train backbone and an auxiliary head on labels and on the neighbours' logits for the same images.

        Args:
            neighbours: Gives the neighbours' logits; None to learn from labels alone.
            recipe: The distillation loss.
            training: Epochs, batch size and optimiser.
            head: Index of the auxiliary head.
            round_: Number of the round, which also seeds the batches.

        Returns:
            The mean loss of the last epoch.
        """

        def mixed_loss(indices: Tensor) -> Tensor:
            theirs = None if neighbours is None else neighbours(indices)
            logits = self.network.logits(self.images[indices], head)
            return distillation.loss(logits, self.labels[indices], theirs, recipe)

        return self.minimize(mixed_loss, training, [self.network.backbone, self.network.heads[head]], round_)

    def predict_logits(self, images: Tensor, head: int) -> Tensor:
        """Predict images with one head in eval mode.

        Args:
            images: uint8 [n, channels, height, width].
            head: Index of the head.

        Returns:
            Logits without gradient, fp32 [n, classes], on the network's device.
        """
        return predict_logits(self.network, images, head)

    def minimize(self, loss: BatchLoss, recipe: TrainingRecipe, parts: Sequence[nn.Module], round_: int) -> float:
        """Minimise a loss over batches of the private data by SGD with a cosine schedule.

        Equal seed, round and data give equal weights.

        Args:
            loss: Computes the loss of a batch.
            recipe: Epochs, batch size and optimiser.
            parts: The modules whose parameters are trained.
            round_: Number of the round, which also seeds the batches.

        Returns:
            The mean loss of the last epoch.
        """
        parameters = [parameter for part in parts for parameter in part.parameters()]
        optimizer = torch.optim.SGD(
            parameters, recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        steps = max(1, round(recipe.epochs * len(self.labels) / recipe.batch))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        last_epoch = max(1, round(len(self.labels) / recipe.batch))
        losses: list[float] = []
        self.network.train()
        for _, indices in zip(range(steps), self._batches(recipe.batch, round_), strict=False):
            optimizer.zero_grad()
            value = loss(indices)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(value.item())
        return float(np.mean(losses[-last_epoch:]))

    def _batches(self, size: int, round_: int) -> Iterator[Tensor]:
        """Yield batches of equal size for ever; every sample comes once before any comes again."""
        rng = np.random.default_rng([self.seed, round_])
        size, waiting = min(size, len(self.labels)), np.empty(0, np.int64)
        while True:
            while len(waiting) < size:
                waiting = np.concatenate([waiting, rng.permutation(len(self.labels))])
            yield torch.from_numpy(waiting[:size])
            waiting = waiting[size:]


def predict_logits(network: MultiHeadNetwork, images: Tensor, head: int) -> Tensor:
    """Predict images with one head in eval mode.

    Args:
        network: Left in the mode in which it was.
        images: uint8 [n, channels, height, width].
        head: Index of the head.

    Returns:
        Logits without gradient, fp32 [n, classes], on the network's device.
    """
    with eval_mode(network), torch.no_grad():
        batches = torch.split(images.to(device_of(network)), _BATCH)
        return torch.cat([network.logits(batch, head) for batch in batches])


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a module's parameters."""
    return next(network.parameters()).device


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a module into eval mode for a block, then back into the mode in which it was."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)
