"""Federated rounds of a few clients in this process, whatever they learn: detectors, or anything that has gradients.

    federation = Federation(create_strategy(StrategyRecipe(kind="scaffold")), clients, clients[0].initial_state())
    for number in range(10):
        federation.run_round(number)

Everyone is awake in every round. Hundreds of classifiers are the affair of `diredi.decentralized.simulation`, which has
the same strategies, the same halves of a round, and workers, stacks and disks besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from diredi.decentralized.strategies import ClientContext, Cohort, Message, Strategy
from diredi.decentralized.strategies.base import Learner, add_messages, message_bytes, train_client, weight_upload


class BufferedLearner(Learner, Protocol):
    """A learner of a module that has buffers, too: running statistics and the like."""

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """As its minibatches have left them."""


class Client(Protocol):
    """Somebody's private data, and how a model learns it."""

    @property
    def samples(self) -> int: ...

    @property
    def steps(self) -> int:
        """Of a round."""
        ...

    def learner(self, start: Message, number: int) -> BufferedLearner:
        """For round `number`, from "weights" and "buffers" of `start`."""
        ...


class Federation:
    """A server and its clients. `server` has "weights" and "buffers"; after a round, those that came of it."""

    def __init__(self, strategy: Strategy, clients: Sequence[Client], start: Message) -> None:
        """`start`: weights and buffers that all begin with."""
        self._strategy, self._clients = strategy, clients
        self.server = strategy.initial_server_state(start["weights"]) | {"buffers": start["buffers"]}
        self._memories = [strategy.initial_client_state(self.server) for _ in clients]
        samples, steps = (torch.tensor([float(getattr(one, what)) for one in clients]) for what in ("samples", "steps"))
        self._numbers = Cohort(samples, steps, len(clients), int(samples.sum()), float(steps.mean()))
        self.bytes_down = self.bytes_up = 0
        """Of all rounds so far, uncompressed."""

    def client_state(self, client: int) -> Message:
        """Weights and buffers that a client would use now: its own where nothing is shared, else the server's."""
        memory = self._memories[client]
        return memory if "weights" in memory else self.server

    def run_round(self, number: int) -> None:
        """One round. Rounds are numbered from 0."""
        strategy, sent = self._strategy, self._strategy.broadcast(self.server)
        if sent:
            sent = sent | {"buffers": self.server["buffers"]}
        mean: Message = {}
        if strategy.requires_mean_gradient:
            asked = [
                {"gradient": self._learner(client, number).full_gradient()} for client in range(len(self._clients))
            ]
            mean = self._mean(asked)
            sent = sent | strategy.broadcast_gradient(mean["gradient"])
        self.bytes_down += len(self._clients) * message_bytes(sent)
        uploads = [self._train_client(client, number, sent) for client in range(len(self._clients))]
        mean = mean | self._mean(uploads)
        server = strategy.aggregate(self.server, mean, self._numbers)
        self.server = server | {"buffers": mean.get("buffers", self.server["buffers"])}

    def _train_client(self, client: int, number: int, sent: Message) -> Message:
        strategy, learner = self._strategy, self._learner(client, number)
        gradient = learner.full_gradient() if strategy.requires_full_gradient else {}
        rate = strategy.learning_rates(self._numbers)[client]
        local = ClientContext(sent, self._memories[client], gradient, rate, self._numbers.steps[client])
        upload, memory = train_client(strategy, learner, local)
        if upload:
            upload = upload | {"buffers": learner.buffers}
        self._memories[client] = memory | {"buffers": learner.buffers} if "weights" in memory else memory
        return upload

    def _learner(self, client: int, number: int) -> BufferedLearner:
        return self._clients[client].learner(self.client_state(client), number)

    def _mean(self, uploads: Sequence[Message]) -> Message:
        self.bytes_up += sum(message_bytes(upload) for upload in uploads)
        numbers = self._numbers
        shares, of_samples = self._strategy.aggregation_weights(numbers), numbers.samples / numbers.samples.sum()
        mean: Message = {}
        for upload, share, part in zip(uploads, shares, of_samples, strict=True):
            one = weight_upload(upload, share, part)
            mean = add_messages(mean, one) if mean else one
        return mean
