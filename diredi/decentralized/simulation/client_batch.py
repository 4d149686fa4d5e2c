"""Train a batch of clients, as a stack or one by one. This is pure, so it can run in any process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diredi.data.classification.base import LabelledImages
from diredi.decentralized.partitions import Indices
from diredi.decentralized.simulation.arrays import Arrays, to_arrays, to_tensors
from diredi.decentralized.simulation.learner import ModuleLearner
from diredi.decentralized.strategies import ClientContext, Message, StrategyRecipe, Tree, create_strategy
from diredi.decentralized.strategies.base import add_messages, message_bytes, train_client, weight_upload

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class WorkerContext:
    """What all batches have in common, sent to each worker once."""

    module: nn.Module
    data: LabelledImages


@dataclass(frozen=True)
class ClientBatch:
    """A task: the clients of one chunk. Sequences and arrays have one entry for each client."""

    recipe: StrategyRecipe
    stacked: bool
    gradient_only: bool
    """Compute the clients' full gradients at the server's weights, and train no one."""
    seed: int
    number: int
    """Number of the round."""
    clients: Sequence[int]
    indices: Sequence[Indices]
    """Indices of each client's samples."""
    states: Sequence[Arrays]
    sent: Arrays
    """What the server has sent in this round."""
    weights: Numbers
    """Aggregation weights."""
    sample_shares: Numbers
    """Shares of the cohort's samples."""
    learning_rates: Numbers
    steps: Numbers


@dataclass(frozen=True)
class ClientBatchResult:
    """The result of a task."""

    mean: Arrays
    """The chunk's part of the round's mean."""
    states: Sequence[Arrays]
    """New state of each client; empty under `gradient_only`."""
    bytes_up: int
    loss: float
    """The chunk's part of the round's mean training loss."""


def run_client_batch(context: WorkerContext, batch: ClientBatch) -> ClientBatchResult:
    """Train the clients of a batch.

    Args:
        context: Module and data.
        batch: The clients and what they know.

    Returns:
        The weighted sum of the uploads, and the clients' new states.
    """
    everyone = range(len(batch.clients))
    groups: list[Sequence[int]] = [everyone] if batch.stacked else [[place] for place in everyone]
    sent = to_tensors(batch.sent)
    mean: Message = {}
    states: list[Arrays] = []
    bytes_up, loss = 0, 0.0
    with _isolate_threads_and_randomness():
        context.module.train()
        for places in groups:
            group = _ClientGroup(context, batch, sent, places)
            upload = {"gradient": group.learner.full_gradient()} if batch.gradient_only else group.train()
            part = weight_upload(upload, group.weights, group.sample_shares)
            mean = add_messages(mean, part) if mean else part
            states += group.states
            bytes_up += message_bytes(upload)
            loss += float((group.learner.losses / group.steps * group.sample_shares).sum())
    return ClientBatchResult(to_arrays(mean), states, bytes_up, loss)


class _ClientGroup:
    """Clients that are trained together: all of a batch as a stack, or one without the dimension for clients."""

    def __init__(self, context: WorkerContext, batch: ClientBatch, sent: Message, places: Sequence[int]) -> None:
        self._batch, self._sent, self._places = batch, sent, places
        self._state = self._stack([to_tensors(batch.states[place]) for place in places])
        self.weights, self.sample_shares = self._select(batch.weights), self._select(batch.sample_shares)
        self.steps = self._select(batch.steps)
        self.states: list[Arrays] = []
        seeds = [np.random.SeedSequence([batch.seed, batch.number, 1 + batch.clients[place]]) for place in places]
        torch.manual_seed(int(seeds[0].generate_state(1)[0]))
        has_own = "weights" in self._state
        start = self._state if has_own else {kind: self._repeat(self._sent[kind]) for kind in ("weights", "buffers")}
        indices = [batch.indices[place] for place in places]
        batches = [
            batches_of(batch.recipe, own, np.random.default_rng(seed)) for own, seed in zip(indices, seeds, strict=True)
        ]
        self.learner = ModuleLearner(
            context.module, context.data, start["weights"], start.get("buffers", {}), indices, batches, batch.stacked
        )

    def train(self) -> Message:
        """Train the clients; return their upload and keep their states in `states`."""
        strategy = create_strategy(self._batch.recipe)
        gradient = self.learner.full_gradient() if strategy.requires_full_gradient else {}
        rates = self._select(self._batch.learning_rates)
        client = ClientContext(self._sent, self._state, gradient, rates, self.steps)
        upload, state = train_client(strategy, self.learner, client)
        if upload:
            upload["buffers"] = self.learner.buffers
        if "weights" in state:
            state["buffers"] = self.learner.buffers
        self.states = [self._unstack(state, place) for place in range(len(self._places))]
        return upload

    def _select(self, numbers: Numbers) -> Tensor:
        chosen = torch.tensor(numbers[list(self._places)])
        return chosen if self._batch.stacked else chosen[0]

    def _repeat(self, tree: Tree) -> Tree:
        if not self._batch.stacked:
            return tree
        return {name: tensor.expand(len(self._places), *tensor.shape) for name, tensor in tree.items()}

    def _stack(self, states: list[Message]) -> Message:
        if not self._batch.stacked:
            return states[0]
        return {
            kind: {name: torch.stack([state[kind][name] for state in states]) for name in tree}
            for kind, tree in states[0].items()
        }

    def _unstack(self, state: Message, place: int) -> Arrays:
        if not self._batch.stacked:
            return to_arrays(state)
        return to_arrays({kind: {n: tensor[place] for n, tensor in tree.items()} for kind, tree in state.items()})


def steps_of(recipe: StrategyRecipe, samples: int) -> int:
    """Return the number of steps of a client in a round."""
    return recipe.steps or recipe.epochs * batches_in_epoch(recipe, samples)


def batches_of(recipe: StrategyRecipe, indices: Indices, rng: np.random.Generator) -> list[Indices]:
    """Draw a client's batches: epochs in random order, each split into batches whose sizes differ by one at most."""
    steps = steps_of(recipe, len(indices))
    batches: list[Indices] = []
    while len(batches) < steps:
        batches += np.array_split(rng.permutation(indices), batches_in_epoch(recipe, len(indices)))
    return batches[:steps]


def batches_in_epoch(recipe: StrategyRecipe, samples: int) -> int:
    """Return the number of batches of a client in an epoch; see `batches_of`."""
    return -(-samples // recipe.batch)


@contextmanager
def _isolate_threads_and_randomness() -> Iterator[None]:
    """Use one thread, since sums of several may differ in their last bits, and leave torch's random state as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
