"""All peers alike: samples are shuffled and cut into parts of equal size, give or take one."""

from __future__ import annotations

import numpy as np

from diredi.decentralized.partitions.base import Indices, PartitionRecipe


def iid(labels: Indices, peers: int, recipe: PartitionRecipe, random: np.random.Generator) -> list[Indices]:
    return [np.sort(part) for part in np.array_split(random.permutation(len(labels)), peers)]
