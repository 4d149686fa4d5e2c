"""SCAFFOLD: correct each step by control variates (Karimireddy et al., ICML 2020, Algorithm 1)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Tree, map_trees, scale
from diredi.decentralized.strategies.fedavg import FedAvg
from diredi.decentralized.strategies.recipe import StrategyRecipe


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


def _zeros(weights: Tree) -> Tree:
    return map_trees(lambda weight: weight * 0, weights)
