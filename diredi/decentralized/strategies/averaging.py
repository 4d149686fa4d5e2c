"""Strategies that average what clients have learned; they differ in how much a client moves and how much it weighs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Strategy, Tree, map_trees, scale

if TYPE_CHECKING:
    from torch import Tensor


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


class FedProx(FedAvg):
    """Averaging with a proximal term.

    Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020,
    Algorithm 2: client k minimises f_k(y) + mu / 2 * ||y - w||^2.
    """

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, client: ClientContext) -> Tree:
        """Return g_k(y) + mu (y - w)."""
        mu = self.recipe.mu
        return map_trees(lambda g, y, w: g + mu * (y - w), gradient, weights, client.received["weights"])


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
