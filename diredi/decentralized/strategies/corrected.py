"""Strategies that correct each step of a client by what the server knows: gradients, control variates, momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diredi.decentralized.strategies.averaging import FedAvg
from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Tree, map_trees, scale
from diredi.decentralized.strategies.recipe import StrategyRecipe

if TYPE_CHECKING:
    from torch import Tensor


class Scaffold(FedAvg):
    """Averaging with stochastic controlled steps.

    Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
    ICML 2020, Algorithm 1: y <- y - eta (g_k(y) - c_k + c). Client k keeps its control c_k, the server the mean c of
    all. The new control is grad f_k(w) (option I), or c_k - c + (w - y) / (K eta) after K steps (option II).
    """

    def __init__(self, recipe: StrategyRecipe) -> None:
        super().__init__(recipe)
        self.requires_full_gradient = recipe.option == 1

    def initial_server_state(self, weights: Tree) -> Message:
        """Return the weights and a control of zeros."""
        return {"weights": weights, "control": _zeros(weights)}

    def initial_client_state(self, server: Message) -> Message:
        """Return a control of zeros."""
        return {"control": _zeros(server["weights"])}

    def broadcast(self, server: Message) -> Message:
        """Send weights and control."""
        return {"weights": server["weights"], "control": server["control"]}

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, client: ClientContext) -> Tree:
        """Return g_k(y) - c_k + c."""
        return map_trees(lambda g, own, c: g - own + c, gradient, client.state["control"], client.received["control"])

    def finish_round(self, weights: Tree, client: ClientContext) -> tuple[Message, Message]:
        """Upload the changes of weights and control; keep the new control."""
        upload, _ = super().finish_round(weights, client)
        own = client.state["control"]
        new = (
            client.full_gradient if self.requires_full_gradient else self._mean_step_gradient(upload["change"], client)
        )
        return {**upload, "control": map_trees(lambda after, before: after - before, new, own)}, {"control": new}

    def aggregate(self, server: Message, mean: Message, cohort: Cohort) -> Message:
        """Average the weights; move the control by the mean change, times the cohort's share of all samples."""
        share = cohort.samples.sum() / cohort.total_samples
        control = map_trees(lambda c, change: c + share * change, server["control"], mean["control"])
        return {**super().aggregate(server, mean, cohort), "control": control}

    def _mean_step_gradient(self, change: Tree, client: ClientContext) -> Tree:
        """Return the control of option II: the mean of the gradients at the client's steps."""
        per_step = 1 / (client.steps * client.learning_rate)
        control, own = client.received["control"], client.state["control"]
        return map_trees(lambda c, mine, moved: mine - c - scale(moved, per_step), control, own, change)


class Mime(FedAvg):
    """Averaging with the server's momentum, and MimeLite, with SGD and momentum.

    Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh, "Breaking the Centralized Barrier for Cross-Device Federated
    Learning", NeurIPS 2021, Algorithm 1: y <- y - eta ((1 - beta) (g_k(y) - g_k(w) + grad f(w)) + beta m), where g_k(w)
    is the gradient of the same minibatch at the server's weights; afterwards m <- (1 - beta) grad f(w) + beta m.
    MimeLite (`lite`) uses g_k(y) alone. The momentum m is constant during a round.
    """

    requires_mean_gradient = True

    def __init__(self, recipe: StrategyRecipe) -> None:
        super().__init__(recipe)
        self.requires_reference_gradient = not recipe.lite

    def initial_server_state(self, weights: Tree) -> Message:
        """Return the weights and a momentum of zeros."""
        return {"weights": weights, "momentum": _zeros(weights)}

    def broadcast(self, server: Message) -> Message:
        """Send weights and momentum."""
        return {"weights": server["weights"], "momentum": server["momentum"]}

    def broadcast_gradient(self, gradient: Tree) -> Message:
        """Send the mean gradient; nothing in MimeLite, which needs it only for the server's momentum."""
        return {} if self.recipe.lite else {"gradient": gradient}

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, client: ClientContext) -> Tree:
        """Return the corrected gradient mixed with the momentum."""
        if self.requires_reference_gradient:
            mean = client.received["gradient"]
            gradient = map_trees(lambda g, at_server, average: g - at_server + average, gradient, reference, mean)
        return self._mix(gradient, client.received["momentum"])

    def aggregate(self, server: Message, mean: Message, cohort: Cohort) -> Message:
        """Average the weights and update the momentum by the mean gradient."""
        momentum = self._mix(mean["gradient"], server["momentum"])
        return {**super().aggregate(server, mean, cohort), "momentum": momentum}

    def _mix(self, gradient: Tree, momentum: Tree) -> Tree:
        beta = self.recipe.momentum
        return map_trees(lambda g, m: (1 - beta) * g + beta * m, gradient, momentum)


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


def _zeros(weights: Tree) -> Tree:
    return map_trees(lambda weight: weight * 0, weights)
