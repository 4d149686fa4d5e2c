"""FedNova: clients that take more steps have no more say (Wang et al., NeurIPS 2020, Algorithm 1, with plain SGD)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Tree, map_trees, scale
from diredi.decentralized.strategies.fedavg import FedAvg


class FedNova(FedAvg):
    """The mean change of one step, times the mean number of steps (the paper's tau_eff)."""

    def finish_round(self, weights: Tree, local: ClientContext) -> tuple[Message, Message]:
        upload, _ = super().finish_round(weights, local)
        return {"change": map_trees(lambda change: scale(change, 1 / local.steps), upload["change"])}, {}

    def aggregate(self, server: Message, mean: Message, clients: Cohort) -> Message:
        effective = (self.aggregation_weights(clients) * clients.steps).sum()
        return super().aggregate(server, {"change": map_trees(lambda d: d * effective, mean["change"])}, clients)
