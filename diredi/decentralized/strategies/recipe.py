"""The numbers of a federated strategy, as a value without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from diredi.config import Config


class StrategyRecipe(Config):
    """Choose a strategy and its numbers. A strategy ignores the fields that are marked for others."""

    kind: str = "fedavg"
    """The strategy, by its name in `diredi.decentralized.strategies.STRATEGIES`."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Learning rate of a client's steps, which are those of plain stochastic gradient descent."""
    server_learning_rate: float = Field(default=1.0, gt=0)
    """Factor of the clients' mean change."""
    epochs: int = Field(default=1, ge=1)
    """How often a client goes through its samples in a round."""
    steps: int | None = Field(default=None, ge=1)
    """Steps of a client in a round, however many samples it has. None takes `epochs`."""
    batch: int = Field(default=32, ge=1)
    """The most samples in a step. An epoch is split evenly: 65 samples are three steps of 22, 22 and 21."""
    mu: float = Field(default=0.01, ge=0)
    """fedprox: strength of the proximal term."""
    option: Literal[1, 2] = 2
    """scaffold: a client's control is 1, the gradient of all its samples, or 2, the mean gradient of its steps."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """mime: the share of the server's momentum in a step."""
    lite: bool = False
    """mime: leave out the correction of each minibatch, which takes a second gradient (MimeLite)."""
