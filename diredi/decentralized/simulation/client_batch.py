"""What a worker does: the clients of one chunk learn, in a stack or one by one. Pure, so it may be done anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diredi.data.classification.base import LabelledImages
from diredi.decentralized.simulation.arrays import Arrays, to_arrays, to_tensors
from diredi.decentralized.simulation.learner import Indices, ModuleLearner
from diredi.decentralized.strategies import ClientContext, Message, StrategyRecipe, Tree, create_strategy
from diredi.decentralized.strategies.base import add_messages, message_bytes, train_client, weight_upload

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class WorkerContext:
    """What every worker has and no task carries."""

    module: nn.Module
    data: LabelledImages


@dataclass(frozen=True)
class ClientBatch:
    """The work of one chunk. Sequences and arrays have an entry for each client."""

    recipe: StrategyRecipe
    stacked: bool
    gradient_only: bool
    """Nobody learns: what is asked for are gradients at the server's weights."""
    seed: int
    number: int
    """Of the round."""
    clients: Sequence[int]
    indices: Sequence[Indices]
    """Of a client's samples."""
    memories: Sequence[Arrays]
    sent: Arrays
    shares: Numbers
    of_samples: Numbers
    rates: Numbers
    steps: Numbers


@dataclass(frozen=True)
class ClientBatchResult:
    mean: Arrays
    """The chunk's part of the round's mean."""
    memories: Sequence[Arrays]
    bytes_up: int
    loss: float
    """The chunk's part of the round's mean training loss."""


def run_client_batch(context: WorkerContext, task: ClientBatch) -> ClientBatchResult:
    """What the clients of a task upload, added up, and what each of them remembers."""
    everyone = range(len(task.clients))
    groups: list[Sequence[int]] = [everyone] if task.stacked else [[place] for place in everyone]
    sent = to_tensors(task.sent)
    mean: Message = {}
    memories: list[Arrays] = []
    bytes_up, loss = 0, 0.0
    with _isolate_threads_and_randomness():
        context.module.train()
        for group in groups:
            one = _ClientGroup(context, task, sent, group)
            upload = {"gradient": one.learner.full_gradient()} if task.gradient_only else one.train()
            part = weight_upload(upload, one.shares, one.of_samples)
            mean = add_messages(mean, part) if mean else part
            memories += one.memories
            bytes_up += message_bytes(upload)
            loss += float((one.learner.losses / one.steps * one.of_samples).sum())
    return ClientBatchResult(to_arrays(mean), memories, bytes_up, loss)


class _ClientGroup:
    """Clients of a chunk that learn at once: all in a stack, or one without a leading dimension."""

    def __init__(self, context: WorkerContext, task: ClientBatch, sent: Message, places: Sequence[int]) -> None:
        self._task, self._sent, self._places = task, sent, places
        self._memory = self._stack([to_tensors(task.memories[place]) for place in places])
        self.shares, self.of_samples = self._numbers(task.shares), self._numbers(task.of_samples)
        self.steps = self._numbers(task.steps)
        self.memories: list[Arrays] = []
        seeds = [np.random.SeedSequence([task.seed, task.number, 1 + task.clients[place]]) for place in places]
        torch.manual_seed(int(seeds[0].generate_state(1)[0]))
        has_own = "weights" in self._memory
        start = self._memory if has_own else {kind: self._repeat(self._sent[kind]) for kind in ("weights", "buffers")}
        indices = [task.indices[place] for place in places]
        batches = [
            batches_of(task.recipe, own, np.random.default_rng(seed)) for own, seed in zip(indices, seeds, strict=True)
        ]
        self.learner = ModuleLearner(
            context.module, context.data, start["weights"], start.get("buffers", {}), indices, batches, task.stacked
        )

    def train(self) -> Message:
        """What they upload; what they remember is in `memories`."""
        strategy = create_strategy(self._task.recipe)
        gradient = self.learner.full_gradient() if strategy.requires_full_gradient else {}
        local = ClientContext(self._sent, self._memory, gradient, self._numbers(self._task.rates), self.steps)
        upload, memory = train_client(strategy, self.learner, local)
        if upload:
            upload["buffers"] = self.learner.buffers
        if "weights" in memory:
            memory["buffers"] = self.learner.buffers
        self.memories = [self._unstack(memory, place) for place in range(len(self._places))]
        return upload

    def _numbers(self, numbers: Numbers) -> Tensor:
        chosen = torch.tensor(numbers[list(self._places)])
        return chosen if self._task.stacked else chosen[0]

    def _repeat(self, tree: Tree) -> Tree:
        if not self._task.stacked:
            return tree
        return {name: tensor.expand(len(self._places), *tensor.shape) for name, tensor in tree.items()}

    def _stack(self, memories: list[Message]) -> Message:
        if not self._task.stacked:
            return memories[0]
        return {
            kind: {name: torch.stack([memory[kind][name] for memory in memories]) for name in tree}
            for kind, tree in memories[0].items()
        }

    def _unstack(self, memory: Message, place: int) -> Arrays:
        if not self._task.stacked:
            return to_arrays(memory)
        return to_arrays({kind: {n: tensor[place] for n, tensor in tree.items()} for kind, tree in memory.items()})


def steps_of(recipe: StrategyRecipe, samples: int) -> int:
    """Of a client in a round."""
    return recipe.steps or recipe.epochs * batches_in_epoch(recipe, samples)


def batches_of(recipe: StrategyRecipe, indices: Indices, rng: np.random.Generator) -> list[Indices]:
    """What a client's steps learn from: epochs in random order, each split into batches that differ by one at most."""
    steps = steps_of(recipe, len(indices))
    batches: list[Indices] = []
    while len(batches) < steps:
        batches += np.array_split(rng.permutation(indices), batches_in_epoch(recipe, len(indices)))
    return batches[:steps]


def batches_in_epoch(recipe: StrategyRecipe, samples: int) -> int:
    """Of a client; the last one is not short, see `batches_of`."""
    return -(-samples // recipe.batch)


@contextmanager
def _isolate_threads_and_randomness() -> Iterator[None]:
    """Sums of several threads may differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
