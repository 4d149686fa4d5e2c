"""Every federated strategy on the same skewed clients: rounds and bytes until the model is accurate enough.

Ten clients with primary labels learn scikit-learn's digits with two dense layers; all participate in every round. Each
strategy is run at four learning rates, because no rate is best for all, and shown at the rate with the best final
accuracy. "alone" is no collaboration: the mean of the clients' own models. Accuracy is on the whole test set, in
percent.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
from torch import Tensor, nn

from diredi.decentralized.network import MAIN, MultiHeadNetwork, create_network
from diredi.decentralized.partitions import PartitionRecipe, partition_labels
from diredi.decentralized.recipe import NetworkRecipe
from diredi.decentralized.simulation.recipe import SimulationRecipe
from diredi.decentralized.simulation.simulate import simulate
from diredi.decentralized.strategies import STRATEGIES
from diredi.decentralized.strategies.recipe import StrategyRecipe
from diredi.decentralized.studies.base import Cell, Options, Study, data_of
from diredi.errors import InvalidInput
from diredi.evaluation.study_results import Json, Tables, rows_of, target

CLIENTS, SEEDS, ENOUGH = 10, (0, 1, 2), 90.0
RATES = (0.02, 0.05, 0.1, 0.2)
TABLE, ALL_RATES = "digits, ten clients, gamma 15", "digits, ten clients, gamma 15: every learning rate"


class Classifier(nn.Module):
    """The main head of a network as a module of its own, from uint8 images to logits [n, classes]."""

    def __init__(self, network: MultiHeadNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the main head, float32 [n, classes]."""
        return self.network.logits(images, MAIN)


def cells(options: Options) -> list[Cell]:
    """Return the cells of the study."""
    rounds = 3 if options.quick else 60
    shared: Json = {
        "data": "digits",
        "folder": None,
        "partition": PartitionRecipe(kind="skew", gamma=15).model_dump(),
        "network": NetworkRecipe(backbone="mlp", auxiliary=0).model_dump(),
    }

    def recipe(kind: str, rate: float, seed: int) -> Json:
        strategy = StrategyRecipe(kind=kind, learning_rate=rate, batch=16, epochs=2)
        return SimulationRecipe(strategy=strategy, rounds=rounds, seed=seed).model_dump()

    return [
        Cell(f"{kind}-{rate:g}/seed-{seed}", {**shared, "seed": seed, "recipe": recipe(kind, rate, seed)})
        for kind, rate, seed in product(STRATEGIES, _rates(options), _seeds(options))
    ]


def _rates(options: Options) -> tuple[float, ...]:
    return RATES[2:3] if options.quick else RATES


def _seeds(options: Options) -> tuple[int, ...]:
    return SEEDS[:1] if options.quick else SEEDS


def measure(spec: Json, folder: Path) -> Json:
    """Measure accuracy, in percent, and bytes in both directions after every round.

    All are 0 where the learning rate was so high that the loss became infinite.
    """
    data, recipe = data_of(spec), SimulationRecipe(**spec["recipe"])
    shards = partition_labels(data.train.labels, CLIENTS, PartitionRecipe(**spec["partition"]), spec["seed"])
    network = create_network(
        NetworkRecipe(**spec["network"]), data.train.images.shape[1:], len(data.classes), spec["seed"]
    )
    place = folder / "rounds" / f"{recipe.strategy.kind}-{recipe.strategy.learning_rate:g}-{spec['seed']}"
    try:
        result = simulate(recipe, Classifier(network), data, shards, place)
    except InvalidInput:
        return {"accuracy": [0.0] * recipe.rounds, "bytes": [0] * recipe.rounds}
    return {
        "accuracy": [100 * (metrics.accuracy or 0) for metrics in result.history],
        "bytes": [metrics.bytes_up + metrics.bytes_down for metrics in result.history],
    }


def rows(metrics: dict[str, Json], options: Options) -> list[Json]:
    """Build the rows of the result."""

    def columns(kind: str, rate: float, seed: int) -> dict[str, float]:
        cell = metrics[f"{kind}-{rate:g}/seed-{seed}"]
        enough = np.flatnonzero(np.array(cell["accuracy"]) >= ENOUGH)
        rounds = int(enough[0]) + 1 if len(enough) else len(cell["accuracy"]) + 1
        return {
            "accuracy": cell["accuracy"][-1],
            f"rounds to {ENOUGH:g} %": rounds,
            "MB until then": sum(cell["bytes"][:rounds]) / 1e6,
            "MB a round": cell["bytes"][-1] / 1e6,
            "rate": rate,
        }

    rates, seeds = _rates(options), _seeds(options)
    best = {
        kind: max(rates, key=lambda rate: mean(columns(kind, rate, s)["accuracy"] for s in seeds))
        for kind in STRATEGIES
    }

    def tables(seed: int) -> Tables:
        return {
            TABLE: {kind: columns(kind, best[kind], seed) for kind in STRATEGIES},
            ALL_RATES: {f"{kind}, {rate:g}": columns(kind, rate, seed) for kind, rate in product(STRATEGIES, rates)},
        }

    return rows_of([tables(seed) for seed in seeds])


def targets(rows: list[Json]) -> list[Json]:
    """Judge the claims of the study."""
    accuracy = {row["form"]: row["accuracy"]["mean"] for row in rows if row["table"] == TABLE}
    least = min(value for kind, value in accuracy.items() if kind != "alone")
    return [
        target("least accuracy of a collaboration minus no collaboration, points", least - accuracy["alone"], ">", 0),
        target("SCAFFOLD minus FedAvg, points", accuracy["scaffold"] - accuracy["fedavg"], ">", 0),
    ]


def draw(rows: list[Json], title: str, path: Path) -> None:
    """Draw the final accuracy, and the rounds until it was high enough."""
    from matplotlib.figure import Figure

    ours = [row for row in rows if row["table"] == TABLE]
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, column, unit in zip(axes, ("accuracy", f"rounds to {ENOUGH:g} %"), ("percent", "rounds"), strict=True):
        low, middle, high = (np.array([row[column][what] for row in ours]) for what in ("low", "mean", "high"))
        axis.bar(range(len(ours)), middle, yerr=np.maximum([middle - low, high - middle], 0), capsize=3)
        axis.set_xticks(range(len(ours)), [row["form"] for row in ours], rotation=30)
        axis.set_title(column)
        axis.set_ylabel(f"{unit}; whiskers: seeds")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


FEDERATED = Study(
    "federated", "every federated baseline: rounds and bytes to a given accuracy", cells, measure, rows, targets, draw
)
