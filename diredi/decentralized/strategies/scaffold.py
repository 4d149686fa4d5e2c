"""SCAFFOLD: each step is corrected by where this client and all clients went before (Karimireddy et al., ICML 2020,
Algorithm 1).
"""

from __future__ import annotations

from diredi.decentralized.strategies.base import Clients, Local, Message, Tree, each, scaled
from diredi.decentralized.strategies.fedavg import FedAvg
from diredi.decentralized.strategies.recipe import StrategyRecipe


class Scaffold(FedAvg):
    """A client remembers its control c_i, the server the mean of all: a step goes along gradient - c_i + c."""

    def __init__(self, recipe: StrategyRecipe) -> None:
        super().__init__(recipe)
        self.needs_gradient = recipe.option == 1

    def first_server(self, weights: Tree) -> Message:
        return {"weights": weights, "control": _zeros(weights)}

    def first_memory(self, server: Message) -> Message:
        return {"control": _zeros(server["weights"])}

    def broadcast(self, server: Message) -> Message:
        return {"weights": server["weights"], "control": server["control"]}

    def direction(self, here: Tree, gradient: Tree, twin: Tree, local: Local) -> Tree:
        return each(lambda g, own, c: g - own + c, gradient, local.memory["control"], local.sent["control"])

    def finished(self, here: Tree, local: Local) -> tuple[Message, Message]:
        upload, _ = super().finished(here, local)
        own = local.memory["control"]
        new = local.gradient if self.needs_gradient else self._gone_along(upload["change"], local)
        return {**upload, "control": each(lambda after, before: after - before, new, own)}, {"control": new}

    def _gone_along(self, change: Tree, local: Local) -> Tree:
        """Option II, c_i - c + (x - y_i) / (K rate): the mean of the gradients that its steps met."""
        per_step = 1 / (local.steps * local.rate)
        control, own = local.sent["control"], local.memory["control"]
        return each(lambda c, mine, moved: mine - c - scaled(moved, per_step), control, own, change)

    def combined(self, server: Message, mean: Message, clients: Clients) -> Message:
        """The control moves by as much as those who were awake are of all."""
        awake = clients.samples.sum() / clients.all_samples
        control = each(lambda c, change: c + awake * change, server["control"], mean["control"])
        return {**super().combined(server, mean, clients), "control": control}


def _zeros(weights: Tree) -> Tree:
    return each(lambda weight: weight * 0, weights)
