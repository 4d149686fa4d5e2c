"""Partitions: assign the samples of a data set to peers, each of which then sees its own part alone.

    parts = partition_labels(data.train.labels, 10, PartitionRecipe(kind="skew", gamma=100), seed=0)
    private = [data.train.select(part) for part in parts]

To add a partition, write a `PartitionFunction` in a file beside this one and add a line to PARTITIONS. Sets of images
with boxes are split by `sites.partition_sites`. Importing this package needs no torch.
"""

from __future__ import annotations

from typing import Final

from diredi.decentralized.partitions.base import (
    Indices,
    PartitionFunction,
    PartitionRecipe,
    label_distribution,
    random_generator,
)
from diredi.decentralized.partitions.labels import dirichlet, iid, quantity, skew
from diredi.errors import InvalidInput

PARTITIONS: Final[dict[str, PartitionFunction]] = {
    "iid": iid,
    "skew": skew,
    "dirichlet": dirichlet,
    "quantity": quantity,
}

__all__ = ["PARTITIONS", "Indices", "PartitionFunction", "PartitionRecipe", "label_distribution", "partition_labels"]


def partition_labels(labels: Indices, peers: int, recipe: PartitionRecipe, seed: int) -> list[Indices]:
    """Assign each sample to a peer.

    Args:
        labels: Label of each sample, any integers, int64 [n]. Labels that do not occur are ignored.
        peers: Number of peers, 1 to n.
        recipe: Kind and numbers of the partition.
        seed: Equal arguments give equal partitions.

    Returns:
        The indices of each peer's samples, in rising order: disjoint, together all samples, and never empty.

    Raises:
        InvalidInput: The kind is unknown, there are fewer samples than peers, the seed is below 0, or the recipe leaves
            a peer without samples.

    Examples:
        >>> import numpy as np
        >>> parts = partition_labels(np.array([0, 0, 1, 1]), 2, PartitionRecipe(kind="iid"), seed=0)
        >>> sorted(np.concatenate(parts).tolist())
        [0, 1, 2, 3]
    """
    if recipe.kind not in PARTITIONS:
        raise InvalidInput(f"there is no partition {recipe.kind!r} of labels: use {', '.join(sorted(PARTITIONS))}")
    if not 1 <= peers <= len(labels):
        raise InvalidInput(f"{len(labels)} samples cannot be dealt to {peers} peers: each needs one of its own")
    return PARTITIONS[recipe.kind](labels, peers, recipe, random_generator(seed, peers))
