"""No collaboration at all: what the others have to beat."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Strategy, Tree


class LocalOnly(Strategy):
    """Everyone starts from the same weights, and nothing ever travels."""

    def initial_client_state(self, server: Message) -> Message:
        return dict(server)

    def broadcast(self, server: Message) -> Message:
        return {}

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, local: ClientContext) -> Tree:
        return gradient

    def finish_round(self, weights: Tree, local: ClientContext) -> tuple[Message, Message]:
        return {}, {"weights": weights}

    def aggregate(self, server: Message, mean: Message, clients: Cohort) -> Message:
        return server
