"""What is simulated, and on what, as values without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from diredi.config import Config
from diredi.decentralized.strategies.recipe import StrategyRecipe


class SimulationRecipe(Config):
    """What the figures follow from. Equal recipes on equal data give equal figures."""

    strategy: StrategyRecipe = StrategyRecipe()
    rounds: int = Field(default=20, ge=1)
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the clients that is awake in a round, drawn anew each time."""
    clients_per_round: int | None = Field(default=None, ge=1)
    """How many are awake; None: as `fraction` says."""
    evaluate_every: int = Field(default=1, ge=1)
    """Rounds from one evaluation to the next; the last round is always evaluated."""
    chunk: int = Field(default=32, ge=1)
    """Clients that are one piece of work, and one stack. Sums are made chunk by chunk, so their last bits feel it."""
    training: Literal["auto", "stacked", "one by one"] = "auto"
    """Stacked trains the clients of a chunk at once, as one larger computation: for dense layers it is several times
    faster. Convolutions of a stack are slow on a processor unless images are tiny, and batch norm cannot be stacked, so
    "auto" takes clients one by one where a module has either."""
    seed: int = Field(default=0, ge=0)


class EngineRecipe(Config):
    """What works on the chunks. No figure depends on it but seconds."""

    workers: int = Field(default=1, ge=1)
    """Chunks at once: processes of one thread, or tasks of Ray; 1 without Ray is this process."""
    ray: str | None = None
    """Address of a Ray cluster whose nodes can import DiReDi and the module; "local" starts one here for the while."""
