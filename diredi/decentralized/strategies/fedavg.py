"""FedAvg: the mean of what the clients' weights became (McMahan et al., AISTATS 2017, Algorithm 1)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import Clients, Local, Message, Strategy, Tree, each


class FedAvg(Strategy):
    """What is averaged is the change, so that the server may have a rate of its own; with 1 it is the paper's."""

    def direction(self, here: Tree, gradient: Tree, twin: Tree, local: Local) -> Tree:
        return gradient

    def finished(self, here: Tree, local: Local) -> tuple[Message, Message]:
        return {"change": each(lambda after, before: after - before, here, local.sent["weights"])}, {}

    def combined(self, server: Message, mean: Message, clients: Clients) -> Message:
        rate = self.recipe.server_learning_rate
        weights = each(lambda weight, change: weight + rate * change, server["weights"], mean["change"])
        return {**server, "weights": weights}
