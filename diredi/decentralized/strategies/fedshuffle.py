"""FedShuffle: scale learning rates by steps, and uploads by the chance to participate (Horvath et al., 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diredi.decentralized.strategies.base import Cohort
from diredi.decentralized.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor


class FedShuffle(FedAvg):
    """Averaging over shuffled epochs, in which a client with more samples moves no further.

    Horvath, Sanjabi, Xiao, Richtarik, Rabbat, "FedShuffle: Recipes for Better Use of Local Work in Federated Learning",
    2022, arXiv 2204.13169, Algorithm 1.
    """

    def learning_rates(self, cohort: Cohort) -> Tensor:
        """Return rates inversely proportional to a client's steps.

        The recipe's `learning_rate` is that of a client with the mean number of steps.
        """
        return super().learning_rates(cohort) * cohort.mean_steps / cohort.steps

    def aggregation_weights(self, cohort: Cohort) -> Tensor:
        """Return each client's share of all samples over its chance to participate, float [clients].

        They add up to 1 only on average over the rounds. Weights that add up to 1 in every round would favour clients
        that participate together with small ones.
        """
        return cohort.samples / cohort.total_samples * cohort.total_clients / len(cohort.samples)
