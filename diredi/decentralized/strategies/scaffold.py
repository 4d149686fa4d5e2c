"""SCAFFOLD: each step is corrected by where this client and all clients went before (Karimireddy et al., ICML 2020,
Algorithm 1).
"""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Tree, map_trees, scale
from diredi.decentralized.strategies.fedavg import FedAvg
from diredi.decentralized.strategies.recipe import StrategyRecipe


class Scaffold(FedAvg):
    """A client remembers its control c_i, the server the mean of all: a step goes along gradient - c_i + c."""

    def __init__(self, recipe: StrategyRecipe) -> None:
        super().__init__(recipe)
        self.requires_full_gradient = recipe.option == 1

    def initial_server_state(self, weights: Tree) -> Message:
        return {"weights": weights, "control": _zeros(weights)}

    def initial_client_state(self, server: Message) -> Message:
        return {"control": _zeros(server["weights"])}

    def broadcast(self, server: Message) -> Message:
        return {"weights": server["weights"], "control": server["control"]}

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, local: ClientContext) -> Tree:
        return map_trees(lambda g, own, c: g - own + c, gradient, local.state["control"], local.received["control"])

    def finish_round(self, weights: Tree, local: ClientContext) -> tuple[Message, Message]:
        upload, _ = super().finish_round(weights, local)
        own = local.state["control"]
        new = local.full_gradient if self.requires_full_gradient else self._gone_along(upload["change"], local)
        return {**upload, "control": map_trees(lambda after, before: after - before, new, own)}, {"control": new}

    def _gone_along(self, change: Tree, local: ClientContext) -> Tree:
        """Option II, c_i - c + (x - y_i) / (K rate): the mean of the gradients that its steps met."""
        per_step = 1 / (local.steps * local.learning_rate)
        control, own = local.received["control"], local.state["control"]
        return map_trees(lambda c, mine, moved: mine - c - scale(moved, per_step), control, own, change)

    def aggregate(self, server: Message, mean: Message, clients: Cohort) -> Message:
        """The control moves by as much as those who were awake are of all."""
        awake = clients.samples.sum() / clients.total_samples
        control = map_trees(lambda c, change: c + awake * change, server["control"], mean["control"])
        return {**super().aggregate(server, mean, clients), "control": control}


def _zeros(weights: Tree) -> Tree:
    return map_trees(lambda weight: weight * 0, weights)
