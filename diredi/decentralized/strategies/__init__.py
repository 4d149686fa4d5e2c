"""Federated strategies: how clients with private data and a server train one model. Importing this needs no torch.

    strategy = create_strategy(StrategyRecipe(kind="scaffold", learning_rate=0.1))

To add a strategy, subclass `Strategy` in a file beside this one and add a line to STRATEGIES. `base` defines what a
strategy decides and implements the rest of a round. `diredi.decentralized.simulation` runs a strategy for many clients
on one machine, `diredi.decentralized.federation` for a few clients of any kind.
"""

from __future__ import annotations

from typing import Final

from diredi.decentralized.strategies.averaging import FedAvg, FedNova, FedProx, FedShuffle
from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Strategy, Tree
from diredi.decentralized.strategies.corrected import FedLin, Mime, Scaffold
from diredi.decentralized.strategies.local_only import LocalOnly
from diredi.decentralized.strategies.recipe import StrategyRecipe
from diredi.errors import InvalidInput

STRATEGIES: Final[dict[str, type[Strategy]]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "mime": Mime,
    "fednova": FedNova,
    "fedlin": FedLin,
    "fedshuffle": FedShuffle,
    "alone": LocalOnly,
}

__all__ = ["STRATEGIES", "Cohort", "ClientContext", "Message", "Strategy", "StrategyRecipe", "Tree", "create_strategy"]


def create_strategy(recipe: StrategyRecipe) -> Strategy:
    """Create the strategy that a recipe names.

    Args:
        recipe: Kind and numbers of the strategy.

    Returns:
        A new strategy, which is stateless.

    Raises:
        InvalidInput: The kind is unknown; the message lists those that exist.
    """
    if recipe.kind not in STRATEGIES:
        raise InvalidInput(f"there is no strategy {recipe.kind!r}: use {', '.join(sorted(STRATEGIES))}")
    return STRATEGIES[recipe.kind](recipe)
