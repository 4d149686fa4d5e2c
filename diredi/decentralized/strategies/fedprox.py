"""FedProx: a client is drawn back to where it started (Li et al., MLSys 2020, Algorithm 2)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Tree, map_trees
from diredi.decentralized.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """A client minimises its loss + mu / 2 * (distance from the server's weights)^2."""

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, local: ClientContext) -> Tree:
        mu = self.recipe.mu
        return map_trees(lambda g, w, start: g + mu * (w - start), gradient, weights, local.received["weights"])
