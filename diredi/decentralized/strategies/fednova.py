"""FedNova: average the clients' changes per step (Wang et al., NeurIPS 2020, Algorithm 1, with plain SGD)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Tree, map_trees, scale
from diredi.decentralized.strategies.fedavg import FedAvg


class FedNova(FedAvg):
    """Normalised averaging: a client that takes more steps does not weigh more.

    Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
    Optimization", NeurIPS 2020, Algorithm 1: w <- w + tau_eff * sum_k p_k (y_k - w) / tau_k, where tau_k are the steps
    of client k and tau_eff = sum_k p_k tau_k.
    """

    def finish_round(self, weights: Tree, client: ClientContext) -> tuple[Message, Message]:
        """Upload the mean change of a step, (y_k - w) / tau_k; keep no state."""
        upload, _ = super().finish_round(weights, client)
        return {"change": map_trees(lambda change: scale(change, 1 / client.steps), upload["change"])}, {}

    def aggregate(self, server: Message, mean: Message, cohort: Cohort) -> Message:
        """Add the mean change of a step, times tau_eff."""
        effective = (self.aggregation_weights(cohort) * cohort.steps).sum()
        return super().aggregate(server, {"change": map_trees(lambda d: d * effective, mean["change"])}, cohort)
