"""The learner interface and the values that peers exchange. This module needs no torch.

A peer exchanges predictions of public samples, what its detector finds on public images or, where it averages, weights;
its payload spec says which. The configuration names a factory, "package.module:function", which makes the learner.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from diredi.errors import InvalidInput
from diredi.store.weights import WeightMap
from peer_node.detections import DetectionsSpec, PublicDetections

Floats = NDArray[np.float32]
Metrics = Mapping[str, float]
"""Metrics of one learning step by name, for logs and the summary."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PredictionSpec:
    """Describe the predictions of a peer: their shapes are the same in every round."""

    public_set: str
    """Digest of the public set: "sha256:" and 64 hex digits."""
    samples: int
    """Number of samples in the public set."""
    classes: int
    heads: int
    """Number of heads: the main one and the auxiliary ones."""
    embedding: int = 0
    """Length of an embedding; 0 where the peer gives none."""

    def validation_error(self, update: Update) -> str:
        """Compare an own update with this spec.

        Returns:
            What is wrong with the update; empty if nothing is.
        """
        if not isinstance(update, Predictions):
            return "no predictions where they are promised"
        shape, embeddings = (self.heads, self.samples, self.classes), update.embeddings
        if update.probabilities.shape != shape:
            return f"probabilities of shape {update.probabilities.shape} where {shape} is promised"
        promised = (self.samples, self.embedding) if self.embedding else None
        if (None if embeddings is None else embeddings.shape) != promised:
            return f"embeddings other than the promised {self.embedding} numbers for each of {self.samples} samples"
        return update.validation_error()


LARGEST_WEIGHT: Final = 1e6
"""No training makes a larger weight, and a mean of such values is no number."""


@dataclass(frozen=True, eq=False)
class WeightsSpec:
    """Describe the weights of a peer: their names, types and shapes are the same in every round."""

    example: WeightMap
    """Weights with the shared names, types and shapes; their values do not matter."""

    @cached_property
    def schema(self) -> str:
        """The digest of names, types and shapes."""
        return self.example.schema_digest()

    @cached_property
    def max_bytes(self) -> int:
        """The largest file of such weights in bytes; another writer may pad the names more than we do."""
        return len(self.example.to_bytes()) + 64 * 1024

    def validation_error(self, update: Update) -> str:
        """Compare an update with this spec, as `PredictionSpec.validation_error` does."""
        if not isinstance(update, Weights):
            return "no weights where they are promised"
        try:
            self.example.check_same_schema(update.weights)
            update.weights.check_bounded(LARGEST_WEIGHT)
        except InvalidInput as error:
            return f"a flaw: {error}"
        return "" if update.samples > 0 else "no samples that they were learned from"


PayloadSpec = PredictionSpec | WeightsSpec | DetectionsSpec


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """Hold weights as they travel: the bytes of a safetensors file."""

    data: bytes
    samples: int


@dataclass(frozen=True, eq=False)
class Weights:
    """Hold a model's weights and the number of samples that they were learned from, by which a mean is weighted."""

    weights: WeightMap
    samples: int

    def snapshot(self) -> WeightsFile:
        """Return a copy that further learning does not change."""
        return WeightsFile(self.weights.to_bytes(), self.samples)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Hold what the heads of a model predict for public samples."""

    probabilities: Floats
    """[heads, samples, classes]; each row is a distribution."""
    embeddings: Floats | None = None
    """[samples, embedding]"""

    def validation_error(self) -> str:
        """Check the values.

        Returns:
            What is wrong with them; empty if nothing is.
        """
        if not np.isfinite(self.probabilities).all():
            return "a probability that is not a finite number"
        deviation = np.abs(self.probabilities.sum(-1, dtype=np.float64) - 1).max(initial=0)
        if deviation > _SUM_TOLERANCE or self.probabilities.min(initial=0) < 0:
            return "probabilities that are not a distribution (negative, or their sum is not 1)"
        if self.embeddings is not None and not np.isfinite(self.embeddings).all():
            return "an embedding that is not finite"
        return ""

    def snapshot(self) -> Predictions:
        """Return a copy that further learning does not change."""
        embeddings = None if self.embeddings is None else _read_only_copy(self.embeddings)
        return Predictions(_read_only_copy(self.probabilities), embeddings)


Update = Predictions | Weights | PublicDetections
"""What a peer shares in one round."""
UpdateSnapshot = Predictions | WeightsFile | PublicDetections
"""A published update, which no longer changes."""


@dataclass(frozen=True, eq=False)
class PredictionRequest:
    """Say which predictions a learner asks of its neighbours in a round."""

    samples: NDArray[np.int64] | None = None
    """Indices of the public set, in the order wanted; None for all of it."""
    heads: tuple[int, ...] = (0,)
    embeddings: bool = False
    temperature: float = 1.0
    """Divides the neighbours' logits before their softmax."""

    def __post_init__(self) -> None:
        if self.samples is not None and len(self.samples) == 0:
            raise InvalidInput("the learner's request names no sample: name some, or none at all for the whole set")


class Learner(Protocol):
    """Hold one peer's model and private data.

    It is called from one thread at a time, never from the event loop's. Each round calls `fit`, `compute_update`,
    `build_request` and `learn`, once and in this order; where `collects_first` is set, as for the hub of a star, the
    order is `fit`, `build_request`, `learn`, `compute_update`. What a learner raises ends the peer; a DirediError ends
    it with that error's sentence.
    """

    collects_first: bool
    """Whether the neighbours' updates are collected before this peer publishes its own."""

    @property
    def payload_spec(self) -> PayloadSpec:
        """What this peer exchanges; it never changes."""
        ...

    def fit(self, round_: int) -> Metrics:
        """Learn from private data.

        Args:
            round_: Number of the round, from 1.

        Returns:
            The metrics after it.
        """
        ...

    def compute_update(self, round_: int) -> Update:
        """Return everything that neighbours can get in this round.

        Returns:
            Predictions of every head, or detections, for every sample of the public set in its order; or weights.
        """
        ...

    def build_request(self, round_: int) -> PredictionRequest | None:
        """Return what all neighbours are asked for; None where weights or detections are exchanged."""
        ...

    def learn(self, round_: int, answers: Mapping[str, Any]) -> Metrics:
        """Learn from what the neighbours answered.

        Args:
            round_: Number of the round, from 1.
            answers: Name of a neighbour to the `Predictions` asked for, to its `PublicDetections` or to its `Weights`;
                may be empty.

        Returns:
            The metrics after it.
        """
        ...

    def save(self, path: Path) -> None:
        """Write the model as it is now, complete or not at all. It is called only where the peer keeps its model.

        Args:
            path: A safetensors file, replaced if it is there.
        """
        ...


@dataclass(frozen=True)
class LearnerContext:
    """Hold what a factory makes a learner from."""

    peer: int
    """Which of the peers this is, from 0 to `peers` - 1: it decides which part of the data the peer gets."""
    peers: int
    rounds: int
    seed: int
    data: Mapping[str, Any]
    """Read by the factory alone, as are the options."""
    options: Mapping[str, Any]


LearnerFactory = Callable[[LearnerContext], Learner]


def load_factory(name: str) -> LearnerFactory:
    """Import a learner's factory.

    Args:
        name: "package.module:function".

    Raises:
        InvalidInput: There is no such function, or something that its module needs is missing.
    """
    module, _, attribute = name.partition(":")
    try:
        factory: LearnerFactory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(
            f"the learner {name!r} cannot be had ({error}): write package.module:function, and install what it needs"
        ) from None
    return factory


def _read_only_copy(values: Floats) -> Floats:
    copy = np.array(values, dtype="<f4", order="C")
    copy.flags.writeable = False
    return copy
