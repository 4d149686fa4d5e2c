"""The interface of a federated strategy, and the two halves of a round that all strategies share.

A round has these steps. The server broadcasts. If the strategy requires it, the participating clients first upload the
gradient of all their samples, and the server broadcasts its mean. Each client takes its steps and uploads. The server
aggregates the weighted mean of the uploads. A server only ever averages what clients send, so it never holds more than
one sum in memory.

Everything here works on one client and on a stack of clients. In a stack each tensor has a leading dimension for the
clients, and numbers of a client have the shape [clients] instead of []. What the server sends has no leading dimension.
This module does not import torch: a strategy only uses the arithmetic of the tensors that it is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from diredi.decentralized.strategies.recipe import StrategyRecipe

if TYPE_CHECKING:
    from torch import Tensor

Tree: TypeAlias = "dict[str, Tensor]"
"""Tensors by parameter name: weights, or anything with the shapes of weights."""
Message: TypeAlias = "dict[str, Tree]"
"""Trees by kind ("weights", "change", "control", ...): what is sent, and the state of server and clients.

The kind "buffers" holds a module's tensors that are not parameters. They are averaged alike under every strategy.
"""


@dataclass(frozen=True)
class Cohort:
    """The clients that participate in a round, and totals over all clients."""

    samples: Tensor
    """Samples of each participating client, float [clients]."""
    steps: Tensor
    """Steps of each participating client in this round, float [clients]."""
    total_clients: int
    total_samples: int
    mean_steps: float
    """Mean number of steps over all clients, including those that do not participate."""


@dataclass(frozen=True)
class ClientContext:
    """What one client, or a stack of clients, knows during its half of a round."""

    received: Message
    """Everything that the server has sent in this round."""
    state: Message
    """What the client kept after its last round, or `Strategy.initial_client_state`."""
    full_gradient: Tree
    """Gradient of all its samples at the received weights; empty unless the strategy has `requires_full_gradient`."""
    learning_rate: Tensor
    """Learning rate of its steps, [] or [clients]."""
    steps: Tensor
    """Number of its steps, [] or [clients]."""


class Strategy(ABC):
    """Decide how clients train and how the server aggregates. Subclass it for a strategy of your own.

    A strategy is stateless: it holds its recipe and nothing else. All state is in the messages of server and clients,
    which the caller keeps. `FedAvg` is the usual base class; register the new class in
    `diredi.decentralized.strategies.STRATEGIES`.

    Args:
        recipe: The numbers of the strategy.

    Examples:
        Federated averaging with signed steps:

            class SignFedAvg(FedAvg):
                def step_direction(self, weights, gradient, reference, client):
                    return map_trees(torch.sign, gradient)
    """

    requires_mean_gradient: bool = False
    """Clients first upload the gradient of all their samples; `aggregate` gets the mean as `mean["gradient"]`."""
    requires_full_gradient: bool = False
    """A client computes the gradient of all its own samples before its steps, as `ClientContext.full_gradient`."""
    requires_reference_gradient: bool = False
    """Each step also needs the gradient of its minibatch at the weights that the round started from."""

    def __init__(self, recipe: StrategyRecipe) -> None:
        self.recipe = recipe

    def initial_server_state(self, weights: Tree) -> Message:
        """Return the server's state before the first round.

        Args:
            weights: The first weights of the shared model.

        Returns:
            The state, which must contain `weights` as "weights".
        """
        return {"weights": weights}

    def initial_client_state(self, server: Message) -> Message:
        """Return the state of a client that has not participated yet.

        Args:
            server: The server's state.

        Returns:
            The state. A client whose state has "weights" starts its round from them instead of the server's.
        """
        return {}

    def broadcast(self, server: Message) -> Message:
        """Return what the server sends to each participating client at the start of a round."""
        return {"weights": server["weights"]}

    def broadcast_gradient(self, gradient: Tree) -> Message:
        """Return what the server sends once it knows the clients' mean gradient, under `requires_mean_gradient`.

        Args:
            gradient: Mean of the clients' full gradients at the server's weights, weighted by `aggregation_weights`.
        """
        return {"gradient": gradient}

    def learning_rates(self, cohort: Cohort) -> Tensor:
        """Return the learning rate of each participating client, float [clients]."""
        return cohort.steps * 0 + self.recipe.learning_rate

    def aggregation_weights(self, cohort: Cohort) -> Tensor:
        """Return the factor of each client's upload in the mean, float [clients].

        By default p_k = n_k / n, the client's share of the samples, so that the loss over all samples is minimised.
        Papers that count every client alike assume clients of equal size.
        """
        return cohort.samples / cohort.samples.sum()

    @abstractmethod
    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, client: ClientContext) -> Tree:
        """Return the direction d of one local step y <- y - learning_rate * d.

        Args:
            weights: The client's weights y before the step.
            gradient: Gradient of the step's minibatch at `weights`.
            reference: Gradient of the same minibatch at the weights that the round started from; empty unless the
                strategy has `requires_reference_gradient`.
            client: What the client knows in this round.

        Returns:
            A tree with the names and shapes of `weights`.
        """

    @abstractmethod
    def finish_round(self, weights: Tree, client: ClientContext) -> tuple[Message, Message]:
        """Return what a client uploads after its last step, and the state that it keeps.

        Args:
            weights: The client's weights after its last step.
            client: What the client knows in this round.

        Returns:
            The upload, of which the server sees only the weighted sum over clients, and the client's new state.
        """

    @abstractmethod
    def aggregate(self, server: Message, mean: Message, cohort: Cohort) -> Message:
        """Return the server's state after the round.

        Args:
            server: The server's state before the round.
            mean: Sum over clients of `aggregation_weights` times upload.
            cohort: The clients that participated.

        Returns:
            The new state, which must contain "weights".
        """


class Learner(Protocol):
    """The source of gradients of one client, or of a stack: its model, its samples and their order."""

    @property
    def start(self) -> Tree:
        """The weights that the round starts from."""

    def full_gradient(self) -> Tree:
        """Return the gradient of all samples at `start`."""

    def minibatch_gradient(self, weights: Tree, step: int) -> Tree:
        """Return the gradient of the minibatch of a step, counted from 0, at `weights`."""

    def reference_gradient(self, step: int) -> Tree:
        """Return the gradient of the minibatch of a step at `start`."""


def train_client(strategy: Strategy, learner: Learner, client: ClientContext) -> tuple[Message, Message]:
    """Run the client's half of a round.

    In a stack, a client that has taken all its steps keeps its weights while the others go on.

    Args:
        strategy: Decides the direction of each step and the upload.
        learner: Gives the gradients.
        client: What the client knows in this round.

    Returns:
        The upload, and the state that the client keeps.
    """
    weights = learner.start
    for step in range(int(client.steps.max())):
        reference = learner.reference_gradient(step) if strategy.requires_reference_gradient else {}
        direction = strategy.step_direction(weights, learner.minibatch_gradient(weights, step), reference, client)
        rate = client.learning_rate * (client.steps > step)
        weights = {name: weight - scale(direction[name], rate) for name, weight in weights.items()}
    return strategy.finish_round(weights, client)


def weight_upload(upload: Message, weights: Tensor, sample_shares: Tensor) -> Message:
    """Return the part that an upload has in the round's mean, summed over the clients of a stack.

    Integer tensors (batch norm's counters) are not averaged: their part is the largest.

    Args:
        upload: Of one client, or of a stack.
        weights: The strategy's `aggregation_weights`, [] or [clients].
        sample_shares: The clients' shares of the samples, [] or [clients], by which buffers are averaged.

    Returns:
        Trees without the dimension for clients. `add_messages` sums several of them.
    """
    factors = {kind: sample_shares if kind == "buffers" else weights for kind in upload}
    return {
        kind: {name: _weight_tensor(tensor, factors[kind]) for name, tensor in tree.items()}
        for kind, tree in upload.items()
    }


def add_messages(left: Message, right: Message) -> Message:
    """Return the sum of two results of `weight_upload`; of integer tensors, the larger."""
    return {
        kind: map_trees(lambda a, b: a + b if a.is_floating_point() else a.maximum(b), tree, right[kind])
        for kind, tree in left.items()
    }


def message_bytes(message: Message) -> int:
    """Return the bytes of a message on the wire, uncompressed; of a stack, those of all its clients."""
    return sum(tensor.numel() * tensor.element_size() for tree in message.values() for tensor in tree.values())


def map_trees(function: Callable[..., Tensor], *trees: Tree) -> Tree:
    """Apply a function to the tensors of the same name in all trees."""
    return {name: function(*(tree[name] for tree in trees)) for name in trees[0]}


def scale(tensor: Tensor, factor: Tensor) -> Tensor:
    """Multiply a tensor by a number, or a stack of tensors by one number for each client."""
    return tensor * factor.reshape(factor.shape + (1,) * (tensor.dim() - factor.dim()))


def _weight_tensor(tensor: Tensor, factor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.amax(0) if factor.dim() else tensor
    part = scale(tensor, factor)
    return part.sum(0) if factor.dim() else part
