"""Mime: use the server's momentum in every client's steps (Karimireddy et al., NeurIPS 2021, Algorithm 1)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Tree, map_trees
from diredi.decentralized.strategies.fedavg import FedAvg
from diredi.decentralized.strategies.recipe import StrategyRecipe


class Mime(FedAvg):
    """Averaging with the server's momentum, and MimeLite, with SGD and momentum.

    Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh, "Breaking the Centralized Barrier for Cross-Device Federated
    Learning", NeurIPS 2021, Algorithm 1: y <- y - eta ((1 - beta) (g_k(y) - g_k(w) + grad f(w)) + beta m), where g_k(w)
    is the gradient of the same minibatch at the server's weights; afterwards m <- (1 - beta) grad f(w) + beta m.
    MimeLite (`lite`) uses g_k(y) alone. The momentum m is constant during a round.
    """

    requires_mean_gradient = True

    def __init__(self, recipe: StrategyRecipe) -> None:
        super().__init__(recipe)
        self.requires_reference_gradient = not recipe.lite

    def initial_server_state(self, weights: Tree) -> Message:
        """Return the weights and a momentum of zeros."""
        return {"weights": weights, "momentum": map_trees(lambda weight: weight * 0, weights)}

    def broadcast(self, server: Message) -> Message:
        """Send weights and momentum."""
        return {"weights": server["weights"], "momentum": server["momentum"]}

    def broadcast_gradient(self, gradient: Tree) -> Message:
        """Send the mean gradient; nothing in MimeLite, which needs it only for the server's momentum."""
        return {} if self.recipe.lite else {"gradient": gradient}

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, client: ClientContext) -> Tree:
        """Return the corrected gradient mixed with the momentum."""
        if self.requires_reference_gradient:
            mean = client.received["gradient"]
            gradient = map_trees(lambda g, at_server, average: g - at_server + average, gradient, reference, mean)
        return self._mix(gradient, client.received["momentum"])

    def aggregate(self, server: Message, mean: Message, cohort: Cohort) -> Message:
        """Average the weights and update the momentum by the mean gradient."""
        momentum = self._mix(mean["gradient"], server["momentum"])
        return {**super().aggregate(server, mean, cohort), "momentum": momentum}

    def _mix(self, gradient: Tree, momentum: Tree) -> Tree:
        beta = self.recipe.momentum
        return map_trees(lambda g, m: (1 - beta) * g + beta * m, gradient, momentum)
