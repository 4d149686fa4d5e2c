"""FedNova: clients that take more steps have no more say (Wang et al., NeurIPS 2020, Algorithm 1, with plain SGD)."""

from __future__ import annotations

from diredi.decentralized.strategies.base import Clients, Local, Message, Tree, each, scaled
from diredi.decentralized.strategies.fedavg import FedAvg


class FedNova(FedAvg):
    """The mean change of one step, times the mean number of steps (the paper's tau_eff)."""

    def finished(self, here: Tree, local: Local) -> tuple[Message, Message]:
        upload, _ = super().finished(here, local)
        return {"change": each(lambda change: scaled(change, 1 / local.steps), upload["change"])}, {}

    def combined(self, server: Message, mean: Message, clients: Clients) -> Message:
        effective = (self.shares(clients) * clients.steps).sum()
        return super().combined(server, {"change": each(lambda d: d * effective, mean["change"])}, clients)
