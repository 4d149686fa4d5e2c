"""What learns, as the rest of a peer sees it, and the values that go to and fro. No torch here: a factory brings it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diredi.errors import InvalidInput

Floats = NDArray[np.float32]
Figures = Mapping[str, float]
"""What a step of learning says of itself: name to number, for logs and the summary."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Outline:
    """What all predictions of a peer have in common, round after round."""

    public_set: str
    """Digest of the public set: "sha256:" and 64 hex digits."""
    samples: int
    """In the public set."""
    classes: int
    heads: int
    """The main one and auxiliary ones."""
    embedding: int = 0
    """Numbers in an embedding; 0: none are given."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What heads say of public samples."""

    probabilities: Floats
    """[heads, samples, classes]; each row a distribution."""
    embeddings: Floats | None = None
    """[samples, embedding]"""

    def flaw(self) -> str:
        """What is wrong with the values; empty when nothing is."""
        if not np.isfinite(self.probabilities).all():
            return "a probability that is not a finite number"
        off = np.abs(self.probabilities.sum(-1, dtype=np.float64) - 1).max(initial=0)
        if off > _SUM_TOLERANCE or self.probabilities.min(initial=0) < 0:
            return "probabilities that are not a distribution (negative, or their sum is not 1)"
        if self.embeddings is not None and not np.isfinite(self.embeddings).all():
            return "an embedding that is not finite"
        return ""


@dataclass(frozen=True, eq=False)
class Question:
    """What a learner wants to know of its neighbours in a round."""

    samples: NDArray[np.int64] | None = None
    """Indices of the public set, in the order wanted; None for all of it."""
    heads: tuple[int, ...] = (0,)
    embeddings: bool = False
    temperature: float = 1.0
    """Divides the neighbours' logits before their softmax."""

    def __post_init__(self) -> None:
        if self.samples is not None and len(self.samples) == 0:
            raise InvalidInput("the learner's question names no sample: name some, or none at all for the whole set")


class Learner(Protocol):
    """One peer's model and private data. Called from one thread at a time, never from the event loop's.

    Each round is `fit`, `predictions`, `question`, `learn`, once and in this order. What a learner raises ends the
    peer; a DirediError ends it with its sentence.
    """

    @property
    def outline(self) -> Outline:
        """Never changes."""
        ...

    def fit(self, round_: int) -> Figures:
        """Learn from private data what neighbours shall hear of; rounds are numbered from 1."""
        ...

    def predictions(self, round_: int) -> Predictions:
        """Every head on every sample of the public set, in its order: all that neighbours can ever get."""
        ...

    def question(self, round_: int) -> Question:
        """What all neighbours are asked."""
        ...

    def learn(self, round_: int, answers: Mapping[str, Predictions]) -> Figures:
        """Learn from what neighbours said: name to their heads, samples and embeddings as asked for. May be empty."""
        ...


@dataclass(frozen=True)
class Setting:
    """What a factory makes a learner from."""

    peer: int
    """0 to `peers` - 1: whose part of the data it gets."""
    peers: int
    rounds: int
    seed: int
    data: Mapping[str, Any]
    """The factory's own affair, as are the options."""
    options: Mapping[str, Any]


Factory = Callable[[Setting], Learner]


def factory_named(name: str) -> Factory:
    """The factory "package.module:function". Raises InvalidInput when there is none, or what it needs is missing."""
    module, _, attribute = name.partition(":")
    try:
        found: Factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(
            f"the learner {name!r} cannot be had ({error}): write package.module:function, and install what it needs"
        ) from None
    return found
