"""Mime: clients take the steps that the server's momentum would have them take (Karimireddy et al., NeurIPS 2021,
Algorithm 1, with SGD and momentum).
"""

from __future__ import annotations

from diredi.decentralized.strategies.base import Clients, Local, Message, Tree, each
from diredi.decentralized.strategies.fedavg import FedAvg
from diredi.decentralized.strategies.recipe import StrategyRecipe


class Mime(FedAvg):
    """The momentum stays what it is during a round, so no client's own gradients get into it."""

    asks_gradient = True

    def __init__(self, recipe: StrategyRecipe) -> None:
        super().__init__(recipe)
        self.needs_twin = not recipe.lite

    def first_server(self, weights: Tree) -> Message:
        return {"weights": weights, "momentum": each(lambda weight: weight * 0, weights)}

    def broadcast(self, server: Message) -> Message:
        return {"weights": server["weights"], "momentum": server["momentum"]}

    def announced(self, gradient: Tree) -> Message:
        """MimeLite asks for the gradient only to move the momentum."""
        return {} if self.recipe.lite else {"gradient": gradient}

    def direction(self, here: Tree, gradient: Tree, twin: Tree, local: Local) -> Tree:
        if self.needs_twin:
            gradient = each(lambda g, at_server, mean: g - at_server + mean, gradient, twin, local.sent["gradient"])
        return self._mixed(gradient, local.sent["momentum"])

    def combined(self, server: Message, mean: Message, clients: Clients) -> Message:
        momentum = self._mixed(mean["gradient"], server["momentum"])
        return {**super().combined(server, mean, clients), "momentum": momentum}

    def _mixed(self, gradient: Tree, momentum: Tree) -> Tree:
        beta = self.recipe.momentum
        return each(lambda g, m: (1 - beta) * g + beta * m, gradient, momentum)
