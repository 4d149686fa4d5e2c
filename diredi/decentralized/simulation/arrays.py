"""Convert messages to numpy arrays, which are sent between processes, and to weight maps, which are saved on disk.

Torch sends tensors between processes as handles of shared memory, of which a machine may have little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from diredi.decentralized.strategies import Message
from diredi.store.weights import WeightMap

Arrays = dict[str, dict[str, NDArray[Any]]]
"""A `Message` with arrays instead of tensors."""


def to_arrays(message: Message) -> Arrays:
    """Convert tensors to arrays that share their memory."""
    return {kind: {name: tensor.numpy() for name, tensor in tree.items()} for kind, tree in message.items()}


def to_tensors(arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> Message:
    """Copy arrays to tensors. Copies, because arrays from another process may be read-only."""
    return {kind: {name: torch.tensor(array) for name, array in tree.items()} for kind, tree in arrays.items()}


def to_weight_map(arrays: Arrays) -> WeightMap:
    """Flatten to a weight map with names KIND/NAME."""
    return WeightMap({f"{kind}/{name}": array for kind, tree in arrays.items() for name, array in tree.items()})


def from_weight_map(weights: WeightMap) -> Arrays:
    """Restore what `to_weight_map` was given, without empty trees."""
    arrays: Arrays = {}
    for key, array in weights.items():
        kind, _, name = key.partition("/")
        arrays.setdefault(kind, {})[name] = array
    return arrays
