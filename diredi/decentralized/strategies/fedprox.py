"""FedProx: a client is drawn back to where it started (Li et al., MLSys 2020, Algorithm 2)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import Local, Tree, each
from diredi.decentralized.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """A client minimises its loss + mu / 2 * (distance from the server's weights)^2."""

    def direction(self, here: Tree, gradient: Tree, twin: Tree, local: Local) -> Tree:
        mu = self.recipe.mu
        return each(lambda g, w, start: g + mu * (w - start), gradient, here, local.sent["weights"])
