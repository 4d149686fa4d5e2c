"""Check the arguments of a simulation before it begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from diredi.data.classification.base import ClassificationSet
from diredi.decentralized.partitions import Indices
from diredi.decentralized.simulation.client_batch import batches_in_epoch
from diredi.decentralized.simulation.learner import mixes_samples
from diredi.decentralized.simulation.recipe import SimulationRecipe
from diredi.decentralized.strategies import create_strategy
from diredi.errors import InvalidInput


def check_simulation(
    recipe: SimulationRecipe, module: nn.Module, data: ClassificationSet, shards: Sequence[Indices]
) -> None:
    """Check that recipe, module, data and shards fit each other.

    Args:
        recipe: What is simulated.
        module: Should map uint8 images to logits of the set's classes.
        data: The set of images.
        shards: Indices of each client's training samples.

    Raises:
        InvalidInput: They do not fit; the message names what to change.
    """
    create_strategy(recipe.strategy)
    if not shards or (recipe.clients_per_round or 0) > len(shards):
        raise InvalidInput(f"there are {len(shards)} clients, and more should participate: lower clients_per_round")
    for client, shard in enumerate(shards):
        if not len(shard) or shard.min() < 0 or shard.max() >= len(data.train):
            raise InvalidInput(
                f"client {client} has {len(shard)} samples, not all within the {len(data.train)} of {data.name!r}: "
                "give each client at least one sample of this set"
            )
    _check_module(module, data)
    if mixes_samples(module):
        _check_batch_norm(recipe, shards)


def _check_module(module: nn.Module, data: ClassificationSet) -> None:
    wanted = (min(2, len(data.test)), len(data.classes))
    training = module.training
    try:
        with torch.no_grad():
            shape = tuple(module.eval()(torch.tensor(data.test.images[:2])).shape)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidInput(f"the module cannot take the uint8 images of {data.name!r} ({error}): use another") from None
    finally:
        module.train(training)
    if shape != wanted:
        raise InvalidInput(f"the module gives {list(shape)} for images of {data.name!r}: it should give {list(wanted)}")


def _check_batch_norm(recipe: SimulationRecipe, shards: Sequence[Indices]) -> None:
    if recipe.training == "stacked":
        raise InvalidInput('a module with batch norm cannot be trained stacked: choose "one by one"')
    for client, shard in enumerate(shards):
        if len(shard) // batches_in_epoch(recipe.strategy, len(shard)) < 2:
            raise InvalidInput(f"client {client} has a batch of one sample, which batch norm cannot use: raise batch")
