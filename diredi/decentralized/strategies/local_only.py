"""No collaboration at all: what the others have to beat."""

from __future__ import annotations

from diredi.decentralized.strategies.base import Clients, Local, Message, Strategy, Tree


class LocalOnly(Strategy):
    """Everyone starts from the same weights, and nothing ever travels."""

    def first_memory(self, server: Message) -> Message:
        return dict(server)

    def broadcast(self, server: Message) -> Message:
        return {}

    def direction(self, here: Tree, gradient: Tree, twin: Tree, local: Local) -> Tree:
        return gradient

    def finished(self, here: Tree, local: Local) -> tuple[Message, Message]:
        return {}, {"weights": here}

    def combined(self, server: Message, mean: Message, clients: Clients) -> Message:
        return server
