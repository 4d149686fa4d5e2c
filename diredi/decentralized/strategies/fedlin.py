"""FedLin: each step is corrected by the gradients at the server's weights (Mitra et al., NeurIPS 2021, Algorithm 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diredi.decentralized.strategies.base import ClientContext, Cohort, Tree, map_trees
from diredi.decentralized.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor


class FedLin(FedAvg):
    """A step goes along gradient - own gradient at the start + everyone's. Nothing is remembered between rounds."""

    requires_mean_gradient = requires_full_gradient = True

    def learning_rates(self, clients: Cohort) -> Tensor:
        """Inversely proportional to a client's steps (Theorem 1); `learning_rate` is that of one with a mean number."""
        return super().learning_rates(clients) * clients.mean_steps / clients.steps

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, local: ClientContext) -> Tree:
        return map_trees(lambda g, own, mean: g - own + mean, gradient, local.full_gradient, local.received["gradient"])
