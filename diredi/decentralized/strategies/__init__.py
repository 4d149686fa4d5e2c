"""How clients with private data and a server learn together: FedAvg and its kind. No torch at import.

    strategy = create_strategy(StrategyRecipe(kind="scaffold", learning_rate=0.1))

A strategy is one class in a file beside this one and one line in STRATEGIES. `base` says what it decides and has the
rest of a round; `diredi.decentralized.simulation` runs it for many clients on one machine.
"""

from __future__ import annotations

from typing import Final

from diredi.decentralized.strategies.base import ClientContext, Cohort, Message, Strategy, Tree
from diredi.decentralized.strategies.fedavg import FedAvg
from diredi.decentralized.strategies.fedlin import FedLin
from diredi.decentralized.strategies.fednova import FedNova
from diredi.decentralized.strategies.fedprox import FedProx
from diredi.decentralized.strategies.fedshuffle import FedShuffle
from diredi.decentralized.strategies.local_only import LocalOnly
from diredi.decentralized.strategies.mime import Mime
from diredi.decentralized.strategies.recipe import StrategyRecipe
from diredi.decentralized.strategies.scaffold import Scaffold
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
    """Raises InvalidInput with the strategies that there are."""
    if recipe.kind not in STRATEGIES:
        raise InvalidInput(f"there is no strategy {recipe.kind!r}: use {', '.join(sorted(STRATEGIES))}")
    return STRATEGIES[recipe.kind](recipe)
