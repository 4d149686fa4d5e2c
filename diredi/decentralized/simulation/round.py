"""One round of a simulation: who is awake, what they work on, and what the server makes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from diredi.config import Config
from diredi.data.classification.base import ClassificationSet, LabelledImages
from diredi.decentralized.simulation.arrays import Arrays, to_arrays, to_tensors
from diredi.decentralized.simulation.client_batch import ClientBatch, steps_of
from diredi.decentralized.simulation.client_state import ClientStates
from diredi.decentralized.simulation.engines import Engine
from diredi.decentralized.simulation.learner import Indices, is_faster_stacked
from diredi.decentralized.simulation.recipe import SimulationRecipe
from diredi.decentralized.strategies import Cohort, Message, Tree, create_strategy
from diredi.decentralized.strategies.base import add_messages, message_bytes
from diredi.errors import InvalidInput

IMAGES_AT_ONCE = 512
"""Test images."""


class RoundMetrics(Config):
    """What a round cost and brought."""

    number: int
    """From 0."""
    awake: int
    training_loss: float
    """Mean over the samples of those who were awake, while they learned."""
    accuracy: float | None
    """0 to 1, on the test images; None: not evaluated. Without collaboration the mean of those who were awake."""
    loss: float | None
    """Cross-entropy, likewise."""
    bytes_down: int
    """All that the server sent, to all."""
    bytes_up: int
    seconds: float
    """The evaluation's too."""


class SimulationContext:
    """What is the same in all rounds."""

    def __init__(
        self,
        recipe: SimulationRecipe,
        module: nn.Module,
        data: ClassificationSet,
        shards: Sequence[Indices],
        memories: ClientStates,
    ) -> None:
        self.recipe, self.module, self.test, self.shards, self.memories = recipe, module, data.test, shards, memories
        self.strategy = create_strategy(recipe.strategy)
        self.stacked = recipe.training == "stacked" or (recipe.training == "auto" and is_faster_stacked(module))
        self.samples = np.array([len(shard) for shard in shards])
        self.steps = np.array([steps_of(recipe.strategy, len(shard)) for shard in shards])

    def initial_server_state(self) -> Message:
        weights = {name: weight.detach() for name, weight in self.module.named_parameters() if weight.requires_grad}
        return self.strategy.initial_server_state(weights) | {"buffers": dict(self.module.named_buffers())}

    def awake(self, number: int) -> list[int]:
        """Clients of a round, those with few samples first, so that those of a chunk have about as many steps."""
        count = self.recipe.clients_per_round or max(1, round(self.recipe.fraction * len(self.shards)))
        rng = np.random.default_rng([self.recipe.seed, number, 0])
        drawn = rng.choice(len(self.shards), count, replace=False)
        return sorted(drawn.tolist(), key=lambda client: (self.samples[client], client))

    def clients(self, awake: Sequence[int]) -> Cohort:
        samples, steps = (torch.tensor(numbers[awake], dtype=torch.float32) for numbers in (self.samples, self.steps))
        return Cohort(samples, steps, len(self.shards), int(self.samples.sum()), float(self.steps.mean()))


class Round:
    """`Round(context, number, server, engine).run()`."""

    def __init__(self, context: SimulationContext, number: int, server: Message, engine: Engine) -> None:
        self._context, self._number, self._server, self._engine = context, number, server, engine
        self.awake = context.awake(number)
        self._clients = context.clients(self.awake)
        self._sent = context.strategy.broadcast(server)
        self._mean: Message = {}
        self._bytes_up, self._loss = 0, 0.0
        self._own: list[tuple[float, float]] = []

    def run(self) -> tuple[Message, RoundMetrics]:
        """What the server knows afterwards, and what was found. Raises InvalidInput when the loss is no number."""
        began, strategy = time.monotonic(), self._context.strategy
        if self._sent:
            self._sent = self._sent | {"buffers": self._server["buffers"]}
        if strategy.requires_mean_gradient:
            self._gather(gradient_only=True)
            self._sent = self._sent | strategy.broadcast_gradient(self._mean["gradient"])
        self._gather()
        if not math.isfinite(self._loss):
            raise InvalidInput(f"the loss is no number any more in round {self._number}: lower the learning rate")
        server = strategy.aggregate(self._server, self._mean, self._clients)
        server = server | {"buffers": self._mean.get("buffers", self._server["buffers"])}
        accuracy, loss = self._evaluate(server)
        return server, RoundMetrics(
            number=self._number,
            awake=len(self.awake),
            training_loss=self._loss,
            accuracy=accuracy,
            loss=loss,
            bytes_down=len(self.awake) * message_bytes(self._sent),
            bytes_up=self._bytes_up,
            seconds=time.monotonic() - began,
        )

    def _gather(self, gradient_only: bool = False) -> None:
        """Chunk by chunk in their order, so that sums are always the same and few chunks are in memory."""
        mean: Message = {}
        chunks = self._chunks()
        for places, done in zip(chunks, self._engine(self._tasks(chunks, gradient_only)), strict=True):
            part = to_tensors(done.mean)
            mean = add_messages(mean, part) if mean else part
            self._bytes_up += done.bytes_up
            self._loss += done.loss
            for place, memory in zip(places, done.memories, strict=False):
                self._remember(self.awake[place], memory)
        self._mean |= mean

    def _chunks(self) -> list[range]:
        """Positions in `awake`."""
        count, most = len(self.awake), self._context.recipe.chunk
        return [range(start, min(start + most, count)) for start in range(0, count, most)]

    def _tasks(self, chunks: Sequence[range], gradient_only: bool) -> Iterator[ClientBatch]:
        context, clients = self._context, self._clients
        sent, first = to_arrays(self._sent), to_arrays(context.strategy.initial_client_state(self._server))
        of_samples = (clients.samples / clients.samples.sum()).numpy()
        shares, rates = (
            context.strategy.aggregation_weights(clients).numpy(),
            context.strategy.learning_rates(clients).numpy(),
        )
        for places in chunks:
            chosen = [self.awake[place] for place in places]
            yield ClientBatch(
                recipe=context.recipe.strategy,
                stacked=context.stacked,
                gradient_only=gradient_only,
                seed=context.recipe.seed,
                number=self._number,
                clients=chosen,
                indices=[context.shards[client] for client in chosen],
                memories=[context.memories.read(client, self._number) or first for client in chosen],
                sent=sent,
                shares=shares[places],
                of_samples=of_samples[places],
                rates=rates[places],
                steps=clients.steps.numpy()[places],
            )

    def _remember(self, client: int, memory: Arrays) -> None:
        if memory:
            self._context.memories.write(client, self._number, memory)
        if "weights" in memory and self._is_evaluated():
            own = to_tensors(memory)
            self._own.append(evaluate_module(self._context.module, own["weights"] | own["buffers"], self._context.test))

    def _evaluate(self, server: Message) -> tuple[float | None, float | None]:
        """Accuracy and loss of the server's weights, or, where clients have their own, the mean of theirs."""
        if not self._is_evaluated():
            return None, None
        if self._own:
            accuracy, loss = np.mean(self._own, axis=0).tolist()
            return accuracy, loss
        return evaluate_module(self._context.module, server["weights"] | server["buffers"], self._context.test)

    def _is_evaluated(self) -> bool:
        after = self._number + 1
        return after % self._context.recipe.evaluate_every == 0 or after == self._context.recipe.rounds


def evaluate_module(module: nn.Module, state: Tree, test: LabelledImages) -> tuple[float, float]:
    """Accuracy, 0 to 1, and mean cross-entropy of a module with weights and buffers from `state`."""
    module.eval()
    right, loss = 0, 0.0
    with torch.no_grad():
        for start in range(0, len(test), IMAGES_AT_ONCE):
            images, labels = (
                torch.tensor(array[start : start + IMAGES_AT_ONCE]) for array in (test.images, test.labels)
            )
            logits = functional_call(module, state, (images,))
            right += int((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    return right / len(test), loss / len(test)
