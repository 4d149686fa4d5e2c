"""No collaboration: the baseline that every strategy has to beat."""

from __future__ import annotations

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Strategy, Tree


class LocalOnly(Strategy):
    """Train every client alone, all from the same first weights. Nothing is sent."""

    def initial_client_state(self, server: Message) -> Message:
        """Return a copy of the server's state: the first weights."""
        return dict(server)

    def broadcast(self, server: Message) -> Message:
        """Send nothing."""
        return {}

    def step_direction(self, weights: Tree, gradient: Tree, reference: Tree, client: ClientContext) -> Tree:
        """Return the minibatch's gradient."""
        return gradient

    def finish_round(self, weights: Tree, client: ClientContext) -> tuple[Message, Message]:
        """Upload nothing; keep the weights."""
        return {}, {"weights": weights}

    def aggregate(self, server: Message, mean: Message, cohort: Cohort) -> Message:
        """Return the server's state unchanged."""
        return server
