"""What learns, as the rest of a peer sees it, and the values that go to and fro. No torch here: a factory brings it.

A peer exchanges either predictions of public samples or, where it averages, weights: its spec says which.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diredi.errors import InvalidInput
from diredi.store.weights import WeightMap

Floats = NDArray[np.float32]
Metrics = Mapping[str, float]
"""What a step of learning says of itself: name to number, for logs and the summary."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PredictionSpec:
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

    def validation_error(self, said: Update) -> str:
        """What of a peer's own words is not as promised; empty when nothing is."""
        if not isinstance(said, Predictions):
            return "weights where predictions are promised"
        shape, embeddings = (self.heads, self.samples, self.classes), said.embeddings
        if said.probabilities.shape != shape:
            return f"probabilities of shape {said.probabilities.shape} where {shape} is promised"
        wanted = (self.samples, self.embedding) if self.embedding else None
        if (None if embeddings is None else embeddings.shape) != wanted:
            return f"embeddings other than the promised {self.embedding} numbers for each of {self.samples} samples"
        return said.validation_error()


@dataclass(frozen=True, eq=False)
class WeightsSpec:
    """What all weights of a peer have in common, round after round."""

    example: WeightMap
    """Of the names, types and shapes that are shared; its values are of no matter."""

    @cached_property
    def schema(self) -> str:
        return self.example.schema_digest()

    @cached_property
    def max_bytes(self) -> int:
        """Of a file of such weights; names may be written with more room than ours."""
        return len(self.example.to_bytes()) + 64 * 1024

    def validation_error(self, said: Update) -> str:
        """As `PredictionSpec.flaw`."""
        if not isinstance(said, Weights):
            return "predictions where weights are promised"
        try:
            self.example.check_same_schema(said.weights)
            said.weights.check_finite()
        except InvalidInput as error:
            return f"a flaw: {error}"
        return "" if said.samples > 0 else "no samples that they were learned from"


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """Weights as they travel: a safetensors file."""

    data: bytes
    samples: int


@dataclass(frozen=True, eq=False)
class Weights:
    """A model's weights, and on how many samples they were learned, which is what a mean goes by."""

    weights: WeightMap
    samples: int

    def snapshot(self) -> WeightsFile:
        """What nobody's further learning changes."""
        return WeightsFile(self.weights.to_bytes(), self.samples)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What heads say of public samples."""

    probabilities: Floats
    """[heads, samples, classes]; each row a distribution."""
    embeddings: Floats | None = None
    """[samples, embedding]"""

    def validation_error(self) -> str:
        """What is wrong with the values; empty when nothing is."""
        if not np.isfinite(self.probabilities).all():
            return "a probability that is not a finite number"
        off = np.abs(self.probabilities.sum(-1, dtype=np.float64) - 1).max(initial=0)
        if off > _SUM_TOLERANCE or self.probabilities.min(initial=0) < 0:
            return "probabilities that are not a distribution (negative, or their sum is not 1)"
        if self.embeddings is not None and not np.isfinite(self.embeddings).all():
            return "an embedding that is not finite"
        return ""

    def snapshot(self) -> Predictions:
        """One that nobody's further learning changes."""
        embeddings = self.embeddings
        return Predictions(
            _read_only_copy(self.probabilities), None if embeddings is None else _read_only_copy(embeddings)
        )


Update = Predictions | Weights
UpdateSnapshot = Predictions | WeightsFile
"""What was said, frozen."""


@dataclass(frozen=True, eq=False)
class PredictionRequest:
    """What a learner wants to know of its neighbours in a round."""

    samples: NDArray[np.int64] | None = None
    """Indices of the public set, in the order wanted; None for all of it."""
    heads: tuple[int, ...] = (0,)
    embeddings: bool = False
    temperature: float = 1.0
    """Divides the neighbours' logits before their softmax."""

    def __post_init__(self) -> None:
        if self.samples is not None and len(self.samples) == 0:
            raise InvalidInput("the learner's request names no sample: name some, or none at all for the whole set")


PayloadSpec = PredictionSpec | WeightsSpec


class Learner(Protocol):
    """One peer's model and private data. Called from one thread at a time, never from the event loop's.

    Each round is `fit`, `says`, `request`, `learn`, once and in this order; of one that listens first, as the hub of a
    star does, `fit`, `request`, `learn`, `says`. What a learner raises ends the peer; a DirediError ends it with its
    sentence.
    """

    collects_first: bool

    @property
    def payload_spec(self) -> PayloadSpec:
        """Never changes."""
        ...

    def fit(self, round_: int) -> Metrics:
        """Learn from private data what neighbours shall hear of; rounds are numbered from 1."""
        ...

    def compute_update(self, round_: int) -> Update:
        """All that neighbours can ever get: every head on every sample of the public set, in its order; or weights."""
        ...

    def build_request(self, round_: int) -> PredictionRequest | None:
        """What all neighbours are asked; None where weights are exchanged."""
        ...

    def learn(self, round_: int, answers: Mapping[str, Any]) -> Metrics:
        """Learn from what neighbours said: name to the `Predictions` asked for, or to `Weights`. May be empty."""
        ...


@dataclass(frozen=True)
class LearnerContext:
    """What a factory makes a learner from."""

    peer: int
    """0 to `peers` - 1: whose part of the data it gets."""
    peers: int
    rounds: int
    seed: int
    data: Mapping[str, Any]
    """The factory's own affair, as are the options."""
    options: Mapping[str, Any]


LearnerFactory = Callable[[LearnerContext], Learner]


def load_factory(name: str) -> LearnerFactory:
    """The factory "package.module:function". Raises InvalidInput when there is none, or what it needs is missing."""
    module, _, attribute = name.partition(":")
    try:
        found: LearnerFactory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(
            f"the learner {name!r} cannot be had ({error}): write package.module:function, and install what it needs"
        ) from None
    return found


def _read_only_copy(values: Floats) -> Floats:
    copy = np.array(values, dtype="<f4", order="C")
    copy.flags.writeable = False
    return copy
