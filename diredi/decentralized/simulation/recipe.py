"""The recipes of a simulation, as values without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from diredi.config import Config
from diredi.decentralized.strategies.recipe import StrategyRecipe


class SimulationRecipe(Config):
    """Choose what is simulated. Equal recipes on equal data give equal metrics."""

    strategy: StrategyRecipe = StrategyRecipe()
    """Strategy of clients and server."""
    rounds: int = Field(default=20, ge=1)
    """Number of rounds."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the clients that participate in a round, drawn anew each time."""
    clients_per_round: int | None = Field(default=None, ge=1)
    """Number of clients that participate in a round. None takes `fraction`."""
    evaluate_every: int = Field(default=1, ge=1)
    """Rounds from one evaluation to the next; the last round is always evaluated."""
    chunk: int = Field(default=32, ge=1)
    """Clients that are trained together, as one task and one stack. It changes the last bits of sums."""
    training: Literal["auto", "stacked", "one by one"] = "auto"
    """stacked trains the clients of a chunk as one larger computation, several times faster for dense layers. Stacked
    convolutions are slow on a CPU unless images are tiny, and batch norm cannot be stacked, so auto trains clients one
    by one where a module has either."""
    seed: int = Field(default=0, ge=0)
    """Seed of participation, batches and the module's own randomness."""


class EngineRecipe(Config):
    """Choose where clients are trained. It changes no metric but seconds."""

    workers: int = Field(default=1, ge=1)
    """Chunks trained at once: worker processes of one thread, or tasks of Ray. 1 without Ray is this process."""
    ray: str | None = None
    """Address of a Ray cluster whose nodes can import DiReDi and the module. "local" starts one on this machine."""
