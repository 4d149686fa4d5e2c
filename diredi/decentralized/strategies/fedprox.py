"""FedProx: keep clients near the server's weights (Li et al., MLSys 2020, Algorithm 2)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Tree, map_trees
from diredi.decentralized.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """Averaging with a proximal term.

    Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020,
    Algorithm 2: client k minimises f_k(y) + mu / 2 * ||y - w||^2.
    """

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, client: ClientContext) -> Tree:
        """Return g_k(y) + mu (y - w)."""
        mu = self.recipe.mu
        return map_trees(lambda g, y, w: g + mu * (y - w), gradient, weights, client.received["weights"])
