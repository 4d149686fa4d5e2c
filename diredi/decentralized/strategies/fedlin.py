"""FedLin: each step is corrected by the gradients at the server's weights (Mitra et al., NeurIPS 2021, Algorithm 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diredi.decentralized.strategies.base import Clients, Local, Tree, each
from diredi.decentralized.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from torch import Tensor


class FedLin(FedAvg):
    """A step goes along gradient - own gradient at the start + everyone's. Nothing is remembered between rounds."""

    asks_gradient = needs_gradient = True

    def rates(self, clients: Clients) -> Tensor:
        """Inversely proportional to a client's steps (Theorem 1); `learning_rate` is that of one with a mean number."""
        return super().rates(clients) * clients.mean_steps / clients.steps

    def direction(self, here: Tree, gradient: Tree, twin: Tree, local: Local) -> Tree:
        return each(lambda g, own, mean: g - own + mean, gradient, local.gradient, local.sent["gradient"])
