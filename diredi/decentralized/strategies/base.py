"""What a strategy may decide, and the two halves of a round that are the same for all.

A round: the server broadcasts; clients that are awake may first send the gradient of all their samples, whose mean the
server then announces; each takes its steps and uploads; the server combines the mean of the uploads. Whatever a client
sends is averaged and nothing else is done with it, so a server never needs more than one sum in memory.

Everything weights works on one client's trees and on a stack of many, where each tensor has a leading dimension for
clients. Numbers of a client are tensors of shape [] or [clients]. What the server sends has no leading dimension. No
torch is imported: a strategy uses nothing but the algebra of the tensors it is given.
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
"""Name to tensor: weights, or anything of their shapes."""
Message: TypeAlias = "dict[str, Tree]"
"""Trees by what they are: what travels, and what server and clients remember. "buffers" are a module's tensors that are
no parameters; they are averaged alike whatever the strategy."""


@dataclass(frozen=True)
class Cohort:
    """Those that are awake in a round, and how many there are in all."""

    samples: Tensor
    """[clients], of a float type as all numbers weights."""
    steps: Tensor
    """[clients], of this round."""
    total_clients: int
    total_samples: int
    mean_steps: float
    """Of all clients, the sleeping ones too."""


@dataclass(frozen=True)
class ClientContext:
    """What a client, or a stack of them, knows in a round."""

    received: Message
    """By the server, both times."""
    state: Message
    """What `finish_round` gave when it was awake last, or `initial_client_state`."""
    full_gradient: Tree
    """Of all own samples at the server's weights; {} unless the strategy has `requires_full_gradient`."""
    learning_rate: Tensor
    """Learning rate, [] or [clients]."""
    steps: Tensor
    """[] or [clients]."""


class Strategy(ABC):
    """Pure: it has a recipe and keeps nothing. What it remembers is in the server's and the clients' messages."""

    requires_mean_gradient: bool = False
    """Clients first send the gradient of all their samples; the mean of all is `mean["gradient"]` in `aggregate`."""
    requires_full_gradient: bool = False
    """A client takes its own such gradient along its steps, as `Local.gradient`."""
    requires_reference_gradient: bool = False
    """A step needs the gradient of its minibatch at the server's weights too."""

    def __init__(self, recipe: StrategyRecipe) -> None:
        self.recipe = recipe

    def initial_server_state(self, weights: Tree) -> Message:
        """What the server knows before the first round."""
        return {"weights": weights}

    def initial_client_state(self, server: Message) -> Message:
        """What a client knows that was never awake. One that remembers "weights" starts from them."""
        return {}

    def broadcast(self, server: Message) -> Message:
        """What every client is sent."""
        return {"weights": server["weights"]}

    def broadcast_gradient(self, gradient: Tree) -> Message:
        """What every client is sent after `requires_mean_gradient`, of the clients' mean gradient."""
        return {"gradient": gradient}

    def learning_rates(self, clients: Cohort) -> Tensor:
        """Each client's learning rate, [clients]."""
        return clients.steps * 0 + self.recipe.learning_rate

    def aggregation_weights(self, clients: Cohort) -> Tensor:
        """What each client's upload is multiplied by in their sum, [clients]. By samples, so that what is minimised is
        the loss over all samples; papers that count every client alike mean clients of equal size.
        """
        return clients.samples / clients.samples.sum()

    @abstractmethod
    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, local: ClientContext) -> Tree:
        """What a step subtracts, times the rate. `gradient` is taken at `weights`, `reference` at the start."""

    @abstractmethod
    def finish_round(self, weights: Tree, local: ClientContext) -> tuple[Message, Message]:
        """What a client uploads, and what it remembers, after its last step."""

    @abstractmethod
    def aggregate(self, server: Message, mean: Message, clients: Cohort) -> Message:
        """What the server knows after the round: `mean` is the sum of the uploads times `aggregation_weights`."""


class Learner(Protocol):
    """Where the gradients of a client come from, or those of a stack: its model, its samples and their order."""

    @property
    def start(self) -> Tree:
        """The weights that the round starts from."""

    def full_gradient(self) -> Tree:
        """Gradient of all samples at the start."""

    def minibatch_gradient(self, weights: Tree, step: int) -> Tree:
        """Gradient of a step's minibatch."""

    def reference_gradient(self, step: int) -> Tree:
        """Gradient of a step's minibatch at the start."""


def train_client(strategy: Strategy, learner: Learner, local: ClientContext) -> tuple[Message, Message]:
    """The client's half of a round: what it uploads, and what it remembers. In a stack a client that has taken all its
    steps waits for the others.
    """
    weights = learner.start
    for step in range(int(local.steps.max())):
        reference = learner.reference_gradient(step) if strategy.requires_reference_gradient else {}
        direction = strategy.step_direction(weights, learner.minibatch_gradient(weights, step), reference, local)
        rate = local.learning_rate * (local.steps > step)
        weights = {name: weight - scale(direction[name], rate) for name, weight in weights.items()}
    return strategy.finish_round(weights, local)


def weight_upload(upload: Message, shares: Tensor, of_samples: Tensor) -> Message:
    """A client's, or a stack's, part of the round's mean, without the leading dimension. `of_samples` is its share of
    the samples, which is what buffers go by. Integers (batch-norm's counters) are no average but the largest.
    """
    by = {name: of_samples if name == "buffers" else shares for name in upload}
    return {name: {key: _part(tensor, by[name]) for key, tensor in tree.items()} for name, tree in upload.items()}


def add_messages(one: Message, other: Message) -> Message:
    """Two parts of a mean as one."""
    return {name: map_trees(_sum, tree, other[name]) for name, tree in one.items()}


def message_bytes(message: Message) -> int:
    """Bytes on the wire, uncompressed; of a stack, those of all its clients."""
    return sum(tensor.numel() * tensor.element_size() for tree in message.values() for tensor in tree.values())


def map_trees(function: Callable[..., Tensor], *trees: Tree) -> Tree:
    """`function` of the tensors that have the same name."""
    return {name: function(*(tree[name] for tree in trees)) for name in trees[0]}


def scale(tensor: Tensor, factor: Tensor) -> Tensor:
    """`tensor` times a number for each client."""
    return tensor * factor.reshape(factor.shape + (1,) * (tensor.dim() - factor.dim()))


def _part(tensor: Tensor, share: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.amax(0) if share.dim() else tensor
    part = scale(tensor, share)
    return part.sum(0) if share.dim() else part


def _sum(one: Tensor, other: Tensor) -> Tensor:
    return one + other if one.is_floating_point() else one.maximum(other)
