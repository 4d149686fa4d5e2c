"""Federated learning of many clients, round by round, on one machine.

    FOLDER/checkpoint/     what the server knows and what was found, after each round
    FOLDER/clients/        what clients remember that are asleep
    FOLDER/images.npy      while there are worker processes

A client is a row of indices into one set of images, and costs nothing else while it sleeps. A simulation that was
killed goes on with the round that it was in: all randomness derives from seed, round and client.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from diredi.data.classification.base import ClassificationSet
from diredi.decentralized.simulation.arrays import from_weight_map, to_arrays, to_tensors, to_weight_map
from diredi.decentralized.simulation.check import check
from diredi.decentralized.simulation.client_batch import WorkerContext
from diredi.decentralized.simulation.client_state import ClientStates
from diredi.decentralized.simulation.engines import open_engine
from diredi.decentralized.simulation.learner import Indices
from diredi.decentralized.simulation.recipe import EngineRecipe, SimulationRecipe
from diredi.decentralized.simulation.round import Round, RoundMetrics, SimulationContext
from diredi.decentralized.strategies import Tree
from diredi.distillation.checkpoint import Checkpoint


@dataclass(frozen=True)
class SimulationResult:
    weights: Tree
    """The server's, and buffers: a state dict of the module, but for parameters that do not learn."""
    history: tuple[RoundMetrics, ...]


def simulate(
    recipe: SimulationRecipe,
    module: nn.Module,
    data: ClassificationSet,
    shards: Sequence[Indices],
    folder: Path,
    engine: EngineRecipe | None = None,
    on_round: Callable[[RoundMetrics], None] = lambda figures: None,
) -> SimulationResult:
    """Client i has the images of `data.train` at `shards[i]`. `module` takes uint8 images [n, channels, height, width]
    and gives logits [n, classes]; the server starts with its weights, and it is not changed. Worker processes must be
    able to import its class.

    Goes on where an equal simulation in `folder` has ended; what another has left there is lost. Raises InvalidInput:
    an unknown strategy, a module or shards that do not fit the data, a loss that is no number any more; DirediError
    when a worker dies.
    """
    check(recipe, module, data, shards)
    context = SimulationContext(recipe, copy.deepcopy(module), data, shards, ClientStates(folder / "clients"))
    checkpoint = Checkpoint(folder / "checkpoint", _fingerprint(recipe, module, data, shards))
    server, history = context.initial_server_state(), list[RoundMetrics]()
    if kept := checkpoint.read():
        server |= to_tensors(from_weight_map(kept[1]))
        history = [RoundMetrics(**figures) for figures in kept[0]["history"]]
    else:
        context.memories.clear()
    if len(history) < recipe.rounds:
        with open_engine(engine or EngineRecipe(), WorkerContext(context.module, data.train), folder) as working:
            for number in range(len(history), recipe.rounds):
                this = Round(context, number, server, working)
                server, figures = this.run()
                history.append(figures)
                said = {"history": [one.model_dump() for one in history]}
                checkpoint.write(said, to_weight_map(to_arrays(server)))
                context.memories.forget(this.awake, number)
                on_round(figures)
    return SimulationResult(server["weights"] | server["buffers"], tuple(history))


def _fingerprint(
    recipe: SimulationRecipe, module: nn.Module, data: ClassificationSet, shards: Sequence[Indices]
) -> str:
    """Of everything that the figures follow from."""
    sha = hashlib.sha256(f"{recipe.model_dump_json()} {module} {data.name} {data.classes}".encode())
    state = [tensor.detach().numpy() for tensor in (*module.parameters(), *module.buffers())]
    splits = [array for split in (data.train, data.test) for array in (split.images, split.labels)]
    for array in (*state, *splits, *shards):
        sha.update(f"{array.shape}".encode() + np.ascontiguousarray(array).data)
    return sha.hexdigest()
