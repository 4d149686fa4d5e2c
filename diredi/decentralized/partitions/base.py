"""The recipe and the type of a partition, and helpers that assign samples by shares or counts."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from diredi.config import Config
from diredi.errors import InvalidInput

Indices = NDArray[np.int64]
"""Positions of samples, or their labels: int64 [n]."""
Shares = NDArray[np.float64]

_DRAWS = 100


class PartitionRecipe(Config):
    """Choose a partition and its numbers. A partition ignores the fields that are marked for others."""

    kind: str = "iid"
    """The kind of partition, by its name in `diredi.decentralized.partitions.PARTITIONS`. Detection sets also have
    `camera`."""
    gamma: float = Field(default=0, ge=0, le=1e9)
    """skew: a sample is 1 + gamma times as likely to go to a peer that has its label as a primary label."""
    primary: int | None = Field(default=None, ge=1)
    """skew: how many primary labels a peer has. None takes the fewest with which every label is primary somewhere."""
    concentration: float = Field(default=0.5, gt=0, le=1e9)
    """dirichlet and quantity: the smaller this is, the more the peers differ."""
    camera: str = r"(.+)[-_]\d+"
    """camera: a regular expression for the name of an image without its suffix. Its first group is the name of the
    camera."""

    @field_validator("camera")
    @classmethod
    def _names_a_camera(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression ({error})") from None
        if not groups:
            raise ValueError(f"{pattern!r} has no group that names the camera: put it in parentheses")
        return pattern


PartitionFunction = Callable[[Indices, int, PartitionRecipe, np.random.Generator], list[Indices]]
"""Called as partition(labels, peers, recipe, random); gives the indices of each peer's samples, in rising order.

Every sample belongs to one peer and no peer is empty. Raises InvalidInput where that is impossible.
"""


def random_generator(seed: int, *more: int) -> np.random.Generator:
    """Create a random generator from a seed and further integers.

    Raises:
        InvalidInput: The seed is below 0.
    """
    if seed < 0:
        raise InvalidInput(f"a seed cannot be {seed}: use 0 or more")
    return np.random.default_rng([seed, *more])


def split_by_sizes(order: Indices, sizes: Indices) -> list[Indices]:
    """Split `order` into consecutive parts of the given sizes, and sort each part."""
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def assign_by_shares(
    labels: Indices, draw_shares: Callable[[int], Shares], recipe: PartitionRecipe, random: np.random.Generator
) -> list[Indices]:
    """Assign the samples of every label by the peers' shares of it, and draw again until no peer is empty.

    Args:
        labels: Label of each sample, int64 [n].
        draw_shares: Called with the number k of labels that occur; gives float [k, peers] whose rows add up to 1.
        recipe: Names the partition in the error message.
        random: Source of randomness.

    Returns:
        The indices of each peer's samples, in rising order.

    Raises:
        InvalidInput: A peer was empty in each of a hundred draws.
    """
    _, kinds, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    for _ in range(_DRAWS):
        counts = random.multinomial(sizes, draw_shares(len(sizes)))
        if counts.any(axis=0).all():
            return assign_by_counts(kinds, counts, random)
    raise InvalidInput(
        f"in {_DRAWS} draws of a {recipe.kind} partition one of {counts.shape[1]} peers always went without any of "
        f"{len(labels)} samples: have fewer peers, a larger concentration or a smaller gamma"
    )


def assign_by_counts(kinds: Indices, counts: Indices, random: np.random.Generator) -> list[Indices]:
    """Assign random samples of each kind to peers.

    Args:
        kinds: Kind of each sample, 0 to k - 1, int64 [n].
        counts: How many samples of a kind go to a peer, int64 [k, peers].
        random: Source of randomness.

    Returns:
        The indices of each peer's samples, in rising order.
    """
    order = random.permutation(len(kinds))
    by_kind = order[np.argsort(kinds[order], kind="stable")]
    owners = np.empty(len(kinds), np.int64)
    owners[by_kind] = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.ravel())
    return split_by_sizes(np.argsort(owners, kind="stable"), counts.sum(axis=0))


def label_distribution(labels: Indices, n_classes: int) -> Shares:
    """Compute the share of every class among a peer's labels, which weights accuracy on its own distribution.

    Args:
        labels: The peer's labels, int64 [n].
        n_classes: Number of classes.

    Returns:
        Shares that add up to 1, float64 [n_classes].

    Raises:
        InvalidInput: There are no labels, or one is not within 0 to `n_classes` - 1.
    """
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= n_classes:
        raise InvalidInput(f"{len(labels)} labels have no distribution over {n_classes} classes: all must be of them")
    return np.bincount(labels, minlength=n_classes) / len(labels)
