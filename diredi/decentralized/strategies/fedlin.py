"""FedLin: correct each step by the gradients at the server's weights (Mitra et al., NeurIPS 2021, Algorithm 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diredi.decentralized.strategies.base import ClientContext, Cohort, Tree, map_trees
from diredi.decentralized.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor


class FedLin(FedAvg):
    """Averaging with a gradient correction; nothing is kept between rounds.

    Mitra, Jaafar, Pappas, Hassani, "Linear Convergence in Federated Learning: Tackling Client Heterogeneity and Sparse
    Gradients", NeurIPS 2021, Algorithm 1: y <- y - eta_k (g_k(y) - grad f_k(w) + grad f(w)), where f_k is the loss of
    all of a client's samples and f their mean.
    """

    requires_mean_gradient = requires_full_gradient = True

    def learning_rates(self, cohort: Cohort) -> Tensor:
        """Return rates inversely proportional to a client's steps (Theorem 1).

        The recipe's `learning_rate` is that of a client with the mean number of steps.
        """
        return super().learning_rates(cohort) * cohort.mean_steps / cohort.steps

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, client: ClientContext) -> Tree:
        """Return g_k(y) - grad f_k(w) + grad f(w)."""
        return map_trees(
            lambda g, own, mean: g - own + mean, gradient, client.full_gradient, client.received["gradient"]
        )
