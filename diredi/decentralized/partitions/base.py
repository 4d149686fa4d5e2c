"""What a partition is given, what it may be told, and the two ways in which samples are dealt."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from diredi.config import Config
from diredi.errors import InvalidInput

Indices = NDArray[np.int64]
Shares = NDArray[np.float64]

_DRAWS = 100


class PartitionRecipe(Config):
    """How samples become the private data of peers. What a partition does not name it does not read."""

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
"""labels (n), peers, recipe, random numbers: for each peer the samples that are its own, in rising order.

Every sample is somebody's and nobody's list is empty. Raises InvalidInput when that cannot be.
"""


def random_generator(seed: int, *more: int) -> np.random.Generator:
    """Raises InvalidInput for a seed below 0."""
    if seed < 0:
        raise InvalidInput(f"a seed cannot be {seed}: use 0 or more")
    return np.random.default_rng([seed, *more])


def split_by_sizes(order: Indices, sizes: Indices) -> list[Indices]:
    """The first `sizes[0]` of `order` for the first peer and so on, each part in rising order."""
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def assign_by_shares(
    labels: Indices, draw_shares: Callable[[int], Shares], recipe: PartitionRecipe, random: np.random.Generator
) -> list[Indices]:
    """Deals the samples of every label by the peers' shares of it, again and again until nobody is empty.

    `draw_shares` is called with the number of labels that occur, k, for k x peers shares; each row adds up to 1.
    Raises InvalidInput after a hundred draws.
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
    """Deals as many samples of every kind, 0 to k - 1, to every peer as `counts` (k x peers) says, chance which."""
    order = random.permutation(len(kinds))
    by_kind = order[np.argsort(kinds[order], kind="stable")]
    owners = np.empty(len(kinds), np.int64)
    owners[by_kind] = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.ravel())
    return split_by_sizes(np.argsort(owners, kind="stable"), counts.sum(axis=0))


def label_distribution(labels: Indices, n_classes: int) -> Shares:
    """The share of every class among a peer's labels: the weights of its accuracy on its own distribution.

    Raises InvalidInput when there is no label, or one that is not within 0 to `n_classes` - 1.
    """
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= n_classes:
        raise InvalidInput(f"{len(labels)} labels have no distribution over {n_classes} classes: all must be of them")
    return np.bincount(labels, minlength=n_classes) / len(labels)
