"""FedShuffle: epochs in random order, and no client goes further for having more samples (Horvath et al., 2022,
Algorithm 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diredi.decentralized.strategies.base import Cohort
from diredi.decentralized.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor


class FedShuffle(FedAvg):
    def learning_rates(self, clients: Cohort) -> Tensor:
        """Inversely proportional to a client's steps; `learning_rate` is that of one with a mean number."""
        return super().learning_rates(clients) * clients.mean_steps / clients.steps

    def aggregation_weights(self, clients: Cohort) -> Tensor:
        """w_i / p_i, a client's weight over its chance to be awake. They add up to 1 only on average over the rounds:
        shares that always do favour clients that are awake beside small ones.
        """
        return clients.samples / clients.total_samples * clients.total_clients / len(clients.samples)
