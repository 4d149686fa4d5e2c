"""Gradients of a module on the samples of one client, or of a stack of clients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from diredi.data.classification.base import LabelledImages
from diredi.decentralized.partitions import Indices
from diredi.decentralized.strategies import Tree
from diredi.decentralized.strategies.base import scale

IMAGES_AT_ONCE = 256
"""Images in memory while a full gradient is computed."""


def mixes_samples(module: nn.Module) -> bool:
    """Return whether a module has batch norm, which would take the padding of a stack for samples."""
    return any(isinstance(part, _NormBase) for part in module.modules())


def is_faster_stacked(module: nn.Module) -> bool:
    """Return whether stacking pays on a CPU: dense layers become one product, convolutions many small ones."""
    return not any(isinstance(part, _NormBase | _ConvNd) for part in module.modules())


class ModuleLearner:
    """A `Learner` of a torch module.

    In a stack, tensors have a leading dimension for clients, and shorter batches are padded and masked.

    Args:
        module: Maps uint8 images to logits; used with the weights and buffers that are given.
        data: All training images.
        start: Weights that the round starts from.
        buffers: Buffers that the round starts from.
        indices: Indices of each client's samples.
        batches: Indices of each client's batches, one for each step.
        stacked: Whether the clients are trained as a stack; otherwise there is one client.

    Attributes:
        losses: Sum of each client's losses over its steps, [clients] or [].
    """

    def __init__(
        self,
        module: nn.Module,
        data: LabelledImages,
        start: Tree,
        buffers: Tree,
        indices: Sequence[Indices],
        batches: Sequence[Sequence[Indices]],
        stacked: bool,
    ) -> None:
        self.start, self.buffers = start, _clone(buffers)
        self._module, self._data, self._stacked = module, data, stacked
        self._first_buffers, self._indices, self._batches = buffers, indices, batches
        self.losses = torch.zeros(len(indices)) if stacked else torch.zeros(())

    def full_gradient(self) -> Tree:
        """Return the gradient of all samples at `start`."""
        counts = self._counts(self._indices)
        pieces = -(-max(len(indices) for indices in self._indices) // IMAGES_AT_ONCE)
        split = [np.array_split(indices, pieces) for indices in self._indices]
        total: Tree = {}
        for number in range(pieces):
            chosen = [parts[number] for parts in split]
            share = self._counts(chosen) / counts
            gradient, _ = self._gradient(self.start, _clone(self._first_buffers), chosen)
            part = {name: scale(tensor, share) for name, tensor in gradient.items()}
            total = {name: total[name] + tensor for name, tensor in part.items()} if total else part
        return total

    def minibatch_gradient(self, weights: Tree, step: int) -> Tree:
        """Return the gradient of the batch of a step at `weights`; update `buffers` and `losses`."""
        gradient, loss = self._gradient(weights, self.buffers, self._of_step(step))
        self.losses += loss
        return gradient

    def reference_gradient(self, step: int) -> Tree:
        """Return the gradient of the batch of a step at `start`."""
        return self._gradient(self.start, _clone(self._first_buffers), self._of_step(step))[0]

    def _of_step(self, step: int) -> list[Indices]:
        """Return each client's batch; an empty one for a client that has taken all its steps."""
        return [batches[step] if step < len(batches) else batches[0][:0] for batches in self._batches]

    def _counts(self, chosen: Sequence[Indices]) -> Tensor:
        counts = torch.tensor([len(indices) for indices in chosen], dtype=torch.float32)
        return counts if self._stacked else counts[0]

    def _gradient(self, weights: Tree, buffers: Tree, chosen: Sequence[Indices]) -> tuple[Tree, Tensor]:
        """Return gradient and loss of the chosen samples of each client. The module may change `buffers`."""
        if self._stacked:
            return self._of_stack(weights, buffers, chosen)
        leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        loss = self._loss(leaves, buffers, *self._load(chosen[0]), torch.ones(len(chosen[0])))
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True)), loss.detach()

    def _of_stack(self, weights: Tree, buffers: Tree, chosen: Sequence[Indices]) -> tuple[Tree, Tensor]:
        padded = np.zeros((len(chosen), max(len(indices) for indices in chosen)), np.int64)
        for row, indices in zip(padded, chosen, strict=True):
            row[: len(indices)] = indices
        mask = torch.arange(padded.shape[1]) < self._counts(chosen).unsqueeze(1)
        stack = vmap(grad_and_value(self._loss), randomness="different")
        gradient, losses = stack(weights, buffers, *self._load(padded), mask.float())
        return gradient, losses.detach()

    def _load(self, indices: Indices) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self._data.images[indices]), torch.from_numpy(self._data.labels[indices])

    def _loss(self, weights: Tree, buffers: Tree, images: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        logits = functional_call(self._module, {**weights, **buffers}, (images,))
        losses = F.cross_entropy(logits, labels, reduction="none")
        return (losses * mask).sum() / mask.sum().clamp(min=1)


def _clone(tree: Tree) -> Tree:
    return {name: tensor.clone() for name, tensor in tree.items()}
