"""Messages as numpy arrays, which cross the border of a process by value, and as weight maps, which rest on disk.

Tensors would cross as handles of shared memory, of which a machine may have little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from diredi.decentralized.strategies import Message
from diredi.store.weights import WeightMap

Arrays = dict[str, dict[str, NDArray[Any]]]


def to_arrays(message: Message) -> Arrays:
    return {kind: {name: tensor.numpy() for name, tensor in tree.items()} for kind, tree in message.items()}


def to_tensors(arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> Message:
    """Copies, for what comes from another process may be read-only."""
    return {kind: {name: torch.tensor(array) for name, array in tree.items()} for kind, tree in arrays.items()}


def to_weight_map(arrays: Arrays) -> WeightMap:
    return WeightMap({f"{kind}/{name}": array for kind, tree in arrays.items() for name, array in tree.items()})


def from_weight_map(weights: WeightMap) -> Arrays:
    """What `to_weight_map` was given, but for empty trees."""
    found: Arrays = {}
    for key, array in weights.items():
        kind, _, name = key.partition("/")
        found.setdefault(kind, {})[name] = array
    return found
