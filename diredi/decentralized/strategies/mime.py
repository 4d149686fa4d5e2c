"""Mime: clients take the steps that the server's momentum would have them take (Karimireddy et al., NeurIPS 2021,
Algorithm 1, with SGD and momentum).
"""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Tree, map_trees
from diredi.decentralized.strategies.fedavg import FedAvg
from diredi.decentralized.strategies.recipe import StrategyRecipe


class Mime(FedAvg):
    """The momentum stays what it is during a round, so no client's own gradients get into it."""

    requires_mean_gradient = True

    def __init__(self, recipe: StrategyRecipe) -> None:
        super().__init__(recipe)
        self.requires_reference_gradient = not recipe.lite

    def initial_server_state(self, weights: Tree) -> Message:
        return {"weights": weights, "momentum": map_trees(lambda weight: weight * 0, weights)}

    def broadcast(self, server: Message) -> Message:
        return {"weights": server["weights"], "momentum": server["momentum"]}

    def broadcast_gradient(self, gradient: Tree) -> Message:
        """MimeLite asks for the gradient only to move the momentum."""
        return {} if self.recipe.lite else {"gradient": gradient}

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, local: ClientContext) -> Tree:
        if self.requires_reference_gradient:
            gradient = map_trees(
                lambda g, at_server, mean: g - at_server + mean, gradient, reference, local.received["gradient"]
            )
        return self._mixed(gradient, local.received["momentum"])

    def aggregate(self, server: Message, mean: Message, clients: Cohort) -> Message:
        momentum = self._mixed(mean["gradient"], server["momentum"])
        return {**super().aggregate(server, mean, clients), "momentum": momentum}

    def _mixed(self, gradient: Tree, momentum: Tree) -> Tree:
        beta = self.recipe.momentum
        return map_trees(lambda g, m: (1 - beta) * g + beta * m, gradient, momentum)
