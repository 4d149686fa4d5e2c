"""One peer: a network with a main head and auxiliary ones, its private data, and how it learns from both sides."""

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
"""The loss of a batch, given the indices of its samples: int64 [n]."""
_BATCH = 512


class NeighbourLogits(Protocol):
    """What neighbours say of a peer's samples."""

    def __call__(self, indices: Tensor) -> Tensor:
        """Logits, fp32 [neighbours, n, classes], of the samples `indices`; no gradient."""
        ...


@dataclass(frozen=True)
class CachedLogits:
    """Neighbours that have answered for every sample once, in eval mode."""

    logits: Tensor
    """fp32 [neighbours, samples, classes]."""

    def __call__(self, indices: Tensor) -> Tensor:
        return self.logits[:, indices]


@dataclass(frozen=True)
class TrainModeLogits:
    """Neighbours as the reference code asks them: in train mode, so that an answer depends on the batch, and batch-norm
    statistics drift as they are asked."""

    networks: Sequence[tuple[MultiHeadNetwork, int]]
    """Each neighbour, and the head that is asked. They are changed: pass copies."""
    images: Tensor

    def __call__(self, indices: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.stack([network.train().logits(self.images[indices], head) for network, head in self.networks])


class Peer:
    """Its private data never leaves it; a neighbour sees what its heads say, or, in a study, its weights.

    It learns where `network` is: images and labels are copied to its device.
    """

    def __init__(self, name: str, network: MultiHeadNetwork, data: LabelledImages, seed: int) -> None:
        self.name, self.network, self.seed = name, network, seed
        device = device_of(network)
        self.images, self.labels = torch.from_numpy(data.images).to(device), torch.from_numpy(data.labels).to(device)

    def learn_labels(self, recipe: TrainingRecipe, round_: int = 0) -> float:
        """Backbone and main head learn the peer's own labels; the mean loss of the last epoch."""

        def taught(indices: Tensor) -> Tensor:
            return F.cross_entropy(self.network.logits(self.images[indices], MAIN), self.labels[indices])

        return self.minimize(taught, recipe, [self.network.backbone, self.network.heads[MAIN]], round_)

    def learn_from_neighbours(
        self,
        neighbours: NeighbourLogits | None,
        recipe: DistillationRecipe,
        training: TrainingRecipe,
        head: int = 1,
        round_: int = 0,
    ) -> float:
        """Backbone and an auxiliary head learn labels and what the neighbours say of the same images."""

        def mixed(indices: Tensor) -> Tensor:
            said = None if neighbours is None else neighbours(indices)
            logits = self.network.logits(self.images[indices], head)
            return distillation.loss(logits, self.labels[indices], said, recipe)

        return self.minimize(mixed, training, [self.network.backbone, self.network.heads[head]], round_)

    def predict_logits(self, images: Tensor, head: int) -> Tensor:
        """What a head says of uint8 images [n, channels, height, width], in eval mode: logits fp32 [n, classes]."""
        return predict_logits(self.network, images, head)

    def minimize(self, loss: BatchLoss, recipe: TrainingRecipe, parts: Sequence[nn.Module], round_: int) -> float:
        """Steps along `recipe` on batches of the private data; equal seed, round and data give equal weights. The mean
        loss of the last epoch."""
        parameters = [parameter for part in parts for parameter in part.parameters()]
        optimizer = torch.optim.SGD(
            parameters, recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        steps = max(1, round(recipe.epochs * len(self.labels) / recipe.batch))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        last = max(1, round(len(self.labels) / recipe.batch))
        lost: list[float] = []
        self.network.train()
        for _, indices in zip(range(steps), self._batches(recipe.batch, round_), strict=False):
            optimizer.zero_grad()
            value = loss(indices)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            lost.append(value.item())
        return float(np.mean(lost[-last:]))

    def _batches(self, size: int, round_: int) -> Iterator[Tensor]:
        """Without end: every sample once before any comes again; equal sizes, so that no batch is of one sample."""
        rng = np.random.default_rng([self.seed, round_])
        size, waiting = min(size, len(self.labels)), np.empty(0, np.int64)
        while True:
            while len(waiting) < size:
                waiting = np.concatenate([waiting, rng.permutation(len(self.labels))])
            yield torch.from_numpy(waiting[:size])
            waiting = waiting[size:]


def predict_logits(network: MultiHeadNetwork, images: Tensor, head: int) -> Tensor:
    """Logits of one head in eval mode, without gradient: fp32 [n, classes], on the network's device."""
    with eval_mode(network), torch.no_grad():
        pieces = torch.split(images.to(device_of(network)), _BATCH)
        return torch.cat([network.logits(some, head) for some in pieces])


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode for a while."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)
