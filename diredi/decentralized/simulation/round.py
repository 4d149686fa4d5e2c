"""One round of a simulation: choose the cohort, train it in chunks, and aggregate."""

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
from diredi.decentralized.partitions import Indices
from diredi.decentralized.simulation.arrays import Arrays, to_arrays, to_tensors
from diredi.decentralized.simulation.client_batch import ClientBatch, steps_of
from diredi.decentralized.simulation.client_state import ClientStates
from diredi.decentralized.simulation.engines import Engine
from diredi.decentralized.simulation.learner import is_faster_stacked
from diredi.decentralized.simulation.recipe import SimulationRecipe
from diredi.decentralized.strategies import Cohort, Message, Tree, create_strategy
from diredi.decentralized.strategies.base import add_messages, message_bytes
from diredi.errors import InvalidInput

IMAGES_AT_ONCE = 512
"""Test images in memory during evaluation."""


class RoundMetrics(Config):
    """Metrics and costs of one round."""

    number: int
    """Number of the round, from 0."""
    awake: int
    """Number of clients that participated."""
    training_loss: float
    """Mean training loss, weighted by the samples of the clients that participated."""
    accuracy: float | None
    """Accuracy on the test images, 0 to 1; None in rounds without evaluation. Where clients have models of their own,
    the mean over those that participated."""
    loss: float | None
    """Cross-entropy on the test images, under the same rules."""
    bytes_down: int
    """Bytes that the server sent to all clients."""
    bytes_up: int
    """Bytes that all clients sent to the server."""
    seconds: float
    """Wall-clock time, with evaluation."""


class SimulationContext:
    """What is the same in all rounds of a simulation.

    Args:
        recipe: What is simulated.
        module: Maps uint8 images to logits.
        data: The set of images.
        shards: Indices of each client's training samples.
        states: The clients' states on disk.
    """

    def __init__(
        self,
        recipe: SimulationRecipe,
        module: nn.Module,
        data: ClassificationSet,
        shards: Sequence[Indices],
        states: ClientStates,
    ) -> None:
        self.recipe, self.module, self.test, self.shards, self.states = recipe, module, data.test, shards, states
        self.strategy = create_strategy(recipe.strategy)
        self.stacked = recipe.training == "stacked" or (recipe.training == "auto" and is_faster_stacked(module))
        self.samples = np.array([len(shard) for shard in shards])
        self.steps = np.array([steps_of(recipe.strategy, len(shard)) for shard in shards])

    def initial_server_state(self) -> Message:
        """Return the server's state before the first round."""
        weights = {name: weight.detach() for name, weight in self.module.named_parameters() if weight.requires_grad}
        return self.strategy.initial_server_state(weights) | {"buffers": dict(self.module.named_buffers())}

    def draw_participants(self, number: int) -> list[int]:
        """Draw the clients of a round, sorted by samples so that those of a chunk have about as many steps."""
        count = self.recipe.clients_per_round or max(1, round(self.recipe.fraction * len(self.shards)))
        rng = np.random.default_rng([self.recipe.seed, number, 0])
        drawn = rng.choice(len(self.shards), count, replace=False)
        return sorted(drawn.tolist(), key=lambda client: (self.samples[client], client))

    def cohort(self, participants: Sequence[int]) -> Cohort:
        """Return the numbers of the participants that a strategy uses."""
        samples, steps = (
            torch.tensor(numbers[participants], dtype=torch.float32) for numbers in (self.samples, self.steps)
        )
        return Cohort(samples, steps, len(self.shards), int(self.samples.sum()), float(self.steps.mean()))


class Round:
    """One round; call `run` once.

    Args:
        context: What is the same in all rounds.
        number: Number of the round, from 0.
        server: The server's state before the round.
        engine: Trains batches of clients.
    """

    def __init__(self, context: SimulationContext, number: int, server: Message, engine: Engine) -> None:
        self._context, self._number, self._server, self._engine = context, number, server, engine
        self.participants = context.draw_participants(number)
        self._cohort = context.cohort(self.participants)
        self._sent = context.strategy.broadcast(server)
        self._mean: Message = {}
        self._bytes_up, self._loss = 0, 0.0
        self._own_metrics: list[tuple[float, float]] = []

    def run(self) -> tuple[Message, RoundMetrics]:
        """Run the round.

        Returns:
            The server's state after the round, and the round's metrics.

        Raises:
            InvalidInput: The training loss is not finite.
        """
        began, strategy = time.monotonic(), self._context.strategy
        if self._sent:
            self._sent = self._sent | {"buffers": self._server["buffers"]}
        if strategy.requires_mean_gradient:
            self._train(gradient_only=True)
            self._sent = self._sent | strategy.broadcast_gradient(self._mean["gradient"])
        self._train()
        if not math.isfinite(self._loss):
            raise InvalidInput(f"the training loss in round {self._number} is not finite: lower the learning rate")
        server = strategy.aggregate(self._server, self._mean, self._cohort)
        server = server | {"buffers": self._mean.get("buffers", self._server["buffers"])}
        accuracy, loss = self._evaluate(server)
        return server, RoundMetrics(
            number=self._number,
            awake=len(self.participants),
            training_loss=self._loss,
            accuracy=accuracy,
            loss=loss,
            bytes_down=len(self.participants) * message_bytes(self._sent),
            bytes_up=self._bytes_up,
            seconds=time.monotonic() - began,
        )

    def _train(self, gradient_only: bool = False) -> None:
        """Train chunk by chunk in order, so that sums are always the same and few chunks are in memory."""
        mean: Message = {}
        chunks = self._chunks()
        for places, result in zip(chunks, self._engine(self._batches(chunks, gradient_only)), strict=True):
            part = to_tensors(result.mean)
            mean = add_messages(mean, part) if mean else part
            self._bytes_up += result.bytes_up
            self._loss += result.loss
            for place, state in zip(places, result.states, strict=False):
                self._save(self.participants[place], state)
        self._mean |= mean

    def _chunks(self) -> list[range]:
        """Split the positions in `participants` into chunks."""
        count, most = len(self.participants), self._context.recipe.chunk
        return [range(start, min(start + most, count)) for start in range(0, count, most)]

    def _batches(self, chunks: Sequence[range], gradient_only: bool) -> Iterator[ClientBatch]:
        context, cohort = self._context, self._cohort
        sent, first = to_arrays(self._sent), to_arrays(context.strategy.initial_client_state(self._server))
        sample_shares = (cohort.samples / cohort.samples.sum()).numpy()
        weights = context.strategy.aggregation_weights(cohort).numpy()
        learning_rates = context.strategy.learning_rates(cohort).numpy()
        for places in chunks:
            clients = [self.participants[place] for place in places]
            yield ClientBatch(
                recipe=context.recipe.strategy,
                stacked=context.stacked,
                gradient_only=gradient_only,
                seed=context.recipe.seed,
                number=self._number,
                clients=clients,
                indices=[context.shards[client] for client in clients],
                states=[context.states.read(client, self._number) or first for client in clients],
                sent=sent,
                weights=weights[places],
                sample_shares=sample_shares[places],
                learning_rates=learning_rates[places],
                steps=cohort.steps.numpy()[places],
            )

    def _save(self, client: int, state: Arrays) -> None:
        if state:
            self._context.states.write(client, self._number, state)
        if "weights" in state and self._is_evaluated():
            own = to_tensors(state)
            metrics = evaluate_module(self._context.module, own["weights"] | own["buffers"], self._context.test)
            self._own_metrics.append(metrics)

    def _evaluate(self, server: Message) -> tuple[float | None, float | None]:
        """Return accuracy and loss of the server's weights or, where clients have their own, the mean of theirs."""
        if not self._is_evaluated():
            return None, None
        if self._own_metrics:
            accuracy, loss = np.mean(self._own_metrics, axis=0).tolist()
            return accuracy, loss
        return evaluate_module(self._context.module, server["weights"] | server["buffers"], self._context.test)

    def _is_evaluated(self) -> bool:
        after = self._number + 1
        return after % self._context.recipe.evaluate_every == 0 or after == self._context.recipe.rounds


def evaluate_module(module: nn.Module, state: Tree, test: LabelledImages) -> tuple[float, float]:
    """Evaluate a module with given weights and buffers.

    Args:
        module: Maps uint8 images to logits.
        state: Weights and buffers, by name.
        test: Images and labels.

    Returns:
        Accuracy, 0 to 1, and mean cross-entropy.
    """
    module.eval()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for start in range(0, len(test), IMAGES_AT_ONCE):
            images, labels = (
                torch.tensor(array[start : start + IMAGES_AT_ONCE]) for array in (test.images, test.labels)
            )
            logits = functional_call(module, state, (images,))
            correct += int((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    return correct / len(test), loss / len(test)
