"""Federated rounds of a few clients in this process, whatever they learn.

    federation = Federation(create_strategy(StrategyRecipe(kind="scaffold")), clients, clients[0].initial_state())
    for number in range(10):
        federation.run_round(number)

Every client participates in every round. For hundreds of classifiers use `diredi.decentralized.simulation`, which runs
the same strategies with workers, stacks of clients and state on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from diredi.decentralized.strategies import ClientContext, Cohort, Message, Strategy
from diredi.decentralized.strategies.base import Learner, add_messages, message_bytes, train_client, weight_upload


class BufferedLearner(Learner, Protocol):
    """A learner of a module that also has buffers, such as running statistics."""

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """The buffers as its minibatches have left them."""


class Client(Protocol):
    """One client's private data and model. Implement it to train models of any kind under `Federation`."""

    @property
    def samples(self) -> int:
        """Number of samples."""
        ...

    @property
    def steps(self) -> int:
        """Number of steps in a round."""
        ...

    def learner(self, start: Message, number: int) -> BufferedLearner:
        """Create the learner of a round.

        Args:
            start: "weights" and "buffers" that the round starts from.
            number: Number of the round, from 0.
        """
        ...


class Federation:
    """A server and its clients.

    Args:
        strategy: Decides how clients train and how the server aggregates.
        clients: All clients.
        start: "weights" and "buffers" that all clients start with.

    Attributes:
        server: The server's state; it has "weights" and "buffers".
        bytes_down: Bytes sent to clients in all rounds so far, uncompressed.
        bytes_up: Bytes sent by clients in all rounds so far, uncompressed.
    """

    def __init__(self, strategy: Strategy, clients: Sequence[Client], start: Message) -> None:
        self._strategy, self._clients = strategy, clients
        self.server = strategy.initial_server_state(start["weights"]) | {"buffers": start["buffers"]}
        self._states = [strategy.initial_client_state(self.server) for _ in clients]
        samples = torch.tensor([float(client.samples) for client in clients])
        steps = torch.tensor([float(client.steps) for client in clients])
        self._cohort = Cohort(samples, steps, len(clients), int(samples.sum()), float(steps.mean()))
        self.bytes_down = self.bytes_up = 0

    def client_state(self, client: int) -> Message:
        """Return the "weights" and "buffers" that a client would use now.

        They are its own where the strategy shares nothing, else the server's.
        """
        state = self._states[client]
        return state if "weights" in state else self.server

    def run_round(self, number: int) -> None:
        """Run one round of all clients.

        Args:
            number: Number of the round, from 0.
        """
        strategy, sent = self._strategy, self._strategy.broadcast(self.server)
        if sent:
            sent = sent | {"buffers": self.server["buffers"]}
        mean: Message = {}
        clients = range(len(self._clients))
        if strategy.requires_mean_gradient:
            mean = self._mean([{"gradient": self._learner(client, number).full_gradient()} for client in clients])
            sent = sent | strategy.broadcast_gradient(mean["gradient"])
        self.bytes_down += len(self._clients) * message_bytes(sent)
        mean = mean | self._mean([self._train_client(client, number, sent) for client in clients])
        server = strategy.aggregate(self.server, mean, self._cohort)
        self.server = server | {"buffers": mean.get("buffers", self.server["buffers"])}

    def _train_client(self, client: int, number: int, sent: Message) -> Message:
        strategy, learner = self._strategy, self._learner(client, number)
        gradient = learner.full_gradient() if strategy.requires_full_gradient else {}
        rate = strategy.learning_rates(self._cohort)[client]
        context = ClientContext(sent, self._states[client], gradient, rate, self._cohort.steps[client])
        upload, state = train_client(strategy, learner, context)
        if upload:
            upload = upload | {"buffers": learner.buffers}
        self._states[client] = state | {"buffers": learner.buffers} if "weights" in state else state
        return upload

    def _learner(self, client: int, number: int) -> BufferedLearner:
        return self._clients[client].learner(self.client_state(client), number)

    def _mean(self, uploads: Sequence[Message]) -> Message:
        self.bytes_up += sum(message_bytes(upload) for upload in uploads)
        cohort = self._cohort
        weights, sample_shares = self._strategy.aggregation_weights(cohort), cohort.samples / cohort.samples.sum()
        mean: Message = {}
        for upload, weight, share in zip(uploads, weights, sample_shares, strict=True):
            part = weight_upload(upload, weight, share)
            mean = add_messages(mean, part) if mean else part
        return mean
