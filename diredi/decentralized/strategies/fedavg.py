"""FedAvg: average the clients' weights (McMahan et al., AISTATS 2017, Algorithm 1)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Strategy, Tree, map_trees


class FedAvg(Strategy):
    """Federated averaging, with a learning rate of the server.

    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    Algorithm 1: w <- w + server_learning_rate * sum_k p_k (y_k - w), where y_k are the weights of client k after its
    steps. `server_learning_rate` 1 is the paper's algorithm.
    """

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, client: ClientContext) -> Tree:
        """Return the minibatch's gradient."""
        return gradient

    def finish_round(self, weights: Tree, client: ClientContext) -> tuple[Message, Message]:
        """Upload the change y_k - w; keep no state."""
        return {"change": map_trees(lambda after, before: after - before, weights, client.received["weights"])}, {}

    def aggregate(self, server: Message, mean: Message, cohort: Cohort) -> Message:
        """Add the mean change, times the server's learning rate."""
        rate = self.recipe.server_learning_rate
        weights = map_trees(lambda weight, change: weight + rate * change, server["weights"], mean["change"])
        return {**server, "weights": weights}
