"""How the samples of a set are dealt to peers, each of whom then sees its own part alone. No torch.

    parts = partition_labels(found.train.labels, 10, PartitionRecipe(kind="skew", gamma=100), seed=0)
    private = [found.train.select(part) for part in parts]

A partition is one function in a file beside this one and one line in PARTITIONS. Sets of images with boxes are dealt by
`sites.partition_sites`.
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
from diredi.decentralized.partitions.dirichlet import dirichlet
from diredi.decentralized.partitions.iid import iid
from diredi.decentralized.partitions.quantity import quantity
from diredi.decentralized.partitions.skew import skew
from diredi.errors import InvalidInput

PARTITIONS: Final[dict[str, PartitionFunction]] = {
    "iid": iid,
    "skew": skew,
    "dirichlet": dirichlet,
    "quantity": quantity,
}

__all__ = ["PARTITIONS", "Indices", "PartitionFunction", "PartitionRecipe", "label_distribution", "partition_labels"]


def partition_labels(labels: Indices, peers: int, recipe: PartitionRecipe, seed: int) -> list[Indices]:
    """For each peer the samples that are its own: rising, disjoint, all of them together, never none.

    `labels` (n) are any whole numbers; a label that does not occur is no label. Same arguments, same answer.
    Raises InvalidInput: an unknown kind, fewer samples than peers, a recipe that leaves somebody without.
    """
    if recipe.kind not in PARTITIONS:
        raise InvalidInput(f"there is no partition {recipe.kind!r} of labels: use {', '.join(sorted(PARTITIONS))}")
    if not 1 <= peers <= len(labels):
        raise InvalidInput(f"{len(labels)} samples cannot be dealt to {peers} peers: each needs one of its own")
    return PARTITIONS[recipe.kind](labels, peers, recipe, random_generator(seed, peers))
