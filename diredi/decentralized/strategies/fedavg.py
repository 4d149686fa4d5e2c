"""FedAvg: the mean of what the clients' weights became (McMahan et al., AISTATS 2017, Algorithm 1)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Strategy, Tree, map_trees


class FedAvg(Strategy):
    """What is averaged is the change, so that the server may have a rate of its own; with 1 it is the paper's."""

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, local: ClientContext) -> Tree:
        return gradient

    def finish_round(self, weights: Tree, local: ClientContext) -> tuple[Message, Message]:
        return {"change": map_trees(lambda after, before: after - before, weights, local.received["weights"])}, {}

    def aggregate(self, server: Message, mean: Message, clients: Cohort) -> Message:
        rate = self.recipe.server_learning_rate
        weights = map_trees(lambda weight, change: weight + rate * change, server["weights"], mean["change"])
        return {**server, "weights": weights}
