"""Simulate federated learning of many clients on one machine.

    FOLDER/checkpoint/     state of the server and metrics after each round
    FOLDER/clients/        states of the clients
    FOLDER/images.npy      images that worker processes share, while they run

A client is an array of indices into one set of images, and costs nothing else in rounds in which it does not
participate. A simulation that was interrupted continues with the round that it was in, because all randomness derives
from seed, round and client.
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
from diredi.decentralized.partitions import Indices
from diredi.decentralized.simulation.arrays import from_weight_map, to_arrays, to_tensors, to_weight_map
from diredi.decentralized.simulation.check import check_simulation
from diredi.decentralized.simulation.client_batch import WorkerContext
from diredi.decentralized.simulation.client_state import ClientStates
from diredi.decentralized.simulation.engines import open_engine
from diredi.decentralized.simulation.recipe import EngineRecipe, SimulationRecipe
from diredi.decentralized.simulation.round import Round, RoundMetrics, SimulationContext
from diredi.decentralized.strategies import Tree
from diredi.distillation.checkpoint import Checkpoint


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation returns."""

    weights: Tree
    """The server's weights and buffers: a state dict of the module without its frozen parameters."""
    history: tuple[RoundMetrics, ...]
    """Metrics of each round."""


def simulate(
    recipe: SimulationRecipe,
    module: nn.Module,
    data: ClassificationSet,
    shards: Sequence[Indices],
    folder: Path,
    engine: EngineRecipe | None = None,
    on_round: Callable[[RoundMetrics], None] = lambda metrics: None,
) -> SimulationResult:
    """Simulate federated learning of many clients.

    Args:
        recipe: Strategy, rounds and participation.
        module: Maps uint8 images [n, channels, height, width] to logits [n, classes]. Its weights are the server's
            first weights; it is not changed. Worker processes must be able to import its class.
        data: The images. Clients learn from `data.train`; metrics are those on `data.test`.
        shards: Indices of each client's samples in `data.train`, int64.
        folder: Where state is kept. An equal simulation continues where it has ended there; the state of any other is
            overwritten.
        engine: Where clients are trained; by default in this process.
        on_round: Called with the metrics of each round when it has ended.

    Returns:
        The server's weights and the metrics of all rounds.

    Raises:
        InvalidInput: The strategy is unknown, module or shards do not fit the data, or the loss is not finite.
        DirediError: A worker process or the Ray cluster failed.
    """
    check_simulation(recipe, module, data, shards)
    context = SimulationContext(recipe, copy.deepcopy(module), data, shards, ClientStates(folder / "clients"))
    checkpoint = Checkpoint(folder / "checkpoint", _fingerprint(recipe, module, data, shards))
    server, history = context.initial_server_state(), list[RoundMetrics]()
    if saved := checkpoint.read():
        server |= to_tensors(from_weight_map(saved[1]))
        history = [RoundMetrics(**metrics) for metrics in saved[0]["history"]]
    else:
        context.states.clear()
    if len(history) < recipe.rounds:
        with open_engine(engine or EngineRecipe(), WorkerContext(context.module, data.train), folder) as run_batches:
            for number in range(len(history), recipe.rounds):
                current = Round(context, number, server, run_batches)
                server, metrics = current.run()
                history.append(metrics)
                progress = {"history": [each.model_dump() for each in history]}
                checkpoint.write(progress, to_weight_map(to_arrays(server)))
                context.states.forget(current.participants, number)
                on_round(metrics)
    return SimulationResult(server["weights"] | server["buffers"], tuple(history))


def _fingerprint(
    recipe: SimulationRecipe, module: nn.Module, data: ClassificationSet, shards: Sequence[Indices]
) -> str:
    """Hash everything that the metrics depend on."""
    sha = hashlib.sha256(f"{recipe.model_dump_json()} {module} {data.name} {data.classes}".encode())
    state = [tensor.detach().numpy() for tensor in (*module.parameters(), *module.buffers())]
    splits = [array for split in (data.train, data.test) for array in (split.images, split.labels)]
    for array in (*state, *splits, *shards):
        sha.update(f"{array.shape}".encode() + np.ascontiguousarray(array).data)
    return sha.hexdigest()
