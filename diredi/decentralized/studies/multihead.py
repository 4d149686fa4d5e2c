"""What each head of the chain learns: eight peers with public images, on three topologies.

After Zhmoginov, Sandler, Miller, Kristiansen, Vladymyrov, "Decentralized Learning with Multi-Headed Distillation", CVPR
2023. Private images are skewed; public images have no labels. "own" is accuracy with test labels weighted as they occur
at the peer, "global" with all labels weighted alike; both are means over the peers, in percent.

Auxiliary heads have weight 1 and the learning rate is 0.01, chosen on seed 11: with a weight of 3 or a rate of 0.05,
the gradients of the three heads together outweigh that of the labels, and the network forgets everything.
"""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from diredi.data.classification import ClassificationSet
from diredi.decentralized import multihead
from diredi.decentralized.network import create_network
from diredi.decentralized.partitions import PartitionRecipe, label_distribution, partition_labels
from diredi.decentralized.peer import Peer
from diredi.decentralized.recipe import MultiHeadRecipe, NetworkRecipe, TrainingRecipe
from diredi.decentralized.studies.base import Cell, Options, Study, data_of
from diredi.decentralized.topologies import TopologyRecipe, graph, neighbours
from diredi.evaluation.study_results import Json, Tables, rows_of, target

PEERS, HEADS, SEEDS = 8, 4, (0, 1, 2)
TOPOLOGIES: dict[str, Json] = {
    "complete": {"kind": "complete"},
    "ring": {"kind": "ring"},
    "islands": {"kind": "islands", "islands": 2, "bridges": 1},
}


def cells(options: Options) -> list[Cell]:
    """Return the cells of the study."""
    if options.quick:
        size: Json = {"data": "digits", "private": 800, "public": 400, "rounds": 4}
    else:
        size = {"data": "fashion_mnist", "private": 4000, "public": 1000, "rounds": 12}
    shared = {
        **size,
        "folder": options.folder_of(size["data"]),
        "partition": PartitionRecipe(kind="skew", gamma=100, primary=3).model_dump(),
        "network": NetworkRecipe(backbone="cnn", auxiliary=HEADS - 1).model_dump(),
        "multihead": MultiHeadRecipe(auxiliary=HEADS - 1, auxiliary_weight=1).model_dump(),
        "training": TrainingRecipe(epochs=2, batch=32, learning_rate=0.01).model_dump(),
    }
    return [
        Cell(f"{name}/seed-{seed}", {**shared, "topology": topology, "seed": seed})
        for (name, topology), seed in product(TOPOLOGIES.items(), SEEDS)
    ]


def measure(spec: Json, folder: Path) -> Json:
    """Measure own and global accuracy of each head, the main head first, and processor seconds."""
    data, began = data_of(spec), time.process_time()
    private, public = spec["private"], spec["public"]
    peers = _peers(spec, data)
    images = torch.from_numpy(data.train.images[private : private + public])
    recipe, training = MultiHeadRecipe(**spec["multihead"]), TrainingRecipe(**spec["training"])
    for number in range(spec["rounds"]):
        edges = graph(TopologyRecipe(**spec["topology"]), PEERS, number, spec["seed"])
        predictions = [multihead.predict_public(peer.network, images) for peer in peers]
        for index, peer in enumerate(peers):
            theirs = [predictions[other] for other in neighbours(edges, index)]
            multihead.learn(peer, images, theirs, recipe, training, number)
    return {"heads": _evaluate_heads(peers, data), "seconds": time.process_time() - began}


def _peers(spec: Json, data: ClassificationSet) -> list[Peer]:
    labels = data.train.labels[: spec["private"]]
    shards = partition_labels(labels, PEERS, PartitionRecipe(**spec["partition"]), spec["seed"])
    shape, classes = data.train.images.shape[1:], len(data.classes)
    seeds = [PEERS * spec["seed"] + number for number in range(PEERS)]
    return [
        Peer(
            f"peer-{number}",
            create_network(NetworkRecipe(**spec["network"]), shape, classes, seed),
            data.train.select(shard),
            seed,
        )
        for number, (seed, shard) in enumerate(zip(seeds, shards, strict=True))
    ]


def _evaluate_heads(peers: list[Peer], data: ClassificationSet) -> list[dict[str, float]]:
    """Compute the accuracy for each label, and weight it in two ways."""
    images, classes = torch.from_numpy(data.test.images), len(data.classes)
    heads: list[list[dict[str, float]]] = [[] for _ in range(HEADS)]
    for peer in peers:
        own = label_distribution(peer.labels.numpy(), classes)
        predicted = multihead.predict_public(peer.network, images).probabilities.argmax(-1).numpy()
        for head, predictions in zip(heads, predicted, strict=True):
            accuracy = np.array([np.mean(predictions[data.test.labels == label] == label) for label in range(classes)])
            head.append({"own": float(100 * own @ accuracy), "global": float(100 * accuracy.mean())})
    return [{name: mean(peer[name] for peer in head) for name in ("own", "global")} for head in heads]


def rows(metrics: dict[str, Json], options: Options) -> list[Json]:
    """Build the rows of the result."""

    def tables(seed: int) -> Tables:
        return {
            topology: {
                _head_name(head): columns for head, columns in enumerate(metrics[f"{topology}/seed-{seed}"]["heads"])
            }
            for topology in TOPOLOGIES
        }

    return rows_of([tables(seed) for seed in SEEDS])


def _head_name(head: int) -> str:
    return "main head" if head == 0 else f"auxiliary head {head}"


def targets(rows: list[Json]) -> list[Json]:
    """Judge the claims of the study."""
    by_head = {(row["table"], row["form"]): row for row in rows}

    def gain(topology: str, head: int, before: int) -> float:
        later, earlier = (by_head[topology, _head_name(each)]["global"]["mean"] for each in (head, before))
        return float(later - earlier)

    return [
        *(
            target(f"{name}: first auxiliary head minus main head, global", gain(name, 1, 0), ">", 0)
            for name in TOPOLOGIES
        ),
        *(
            target(f"{name}: last head minus first auxiliary head, global", gain(name, HEADS - 1, 1), ">", 0)
            for name in TOPOLOGIES
        ),
    ]


def draw(rows: list[Json], title: str, path: Path) -> None:
    """Draw accuracy by head, in a panel for each topology."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(TOPOLOGIES), 4), layout="constrained")
    axes = figure.subplots(1, len(TOPOLOGIES), squeeze=False, sharey=True)[0]
    for name, axis in zip(TOPOLOGIES, axes, strict=True):
        ours = [row for row in rows if row["table"] == name]
        for column in ("own", "global"):
            low, middle, high = (np.array([row[column][what] for row in ours]) for what in ("low", "mean", "high"))
            reach = np.maximum([middle - low, high - middle], 0)
            axis.errorbar(range(len(ours)), middle, reach, label=column, marker="o", capsize=3)
        axis.set_xticks(range(len(ours)), ["main", *map(str, range(1, HEADS))])
        axis.set_xlabel("head")
        axis.set_title(name)
    axes[0].set_ylabel("accuracy, percent; whiskers: seeds")
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


MULTIHEAD = Study(
    "multihead", "eight peers and public images: what later heads gain, by graph", cells, measure, rows, targets, draw
)
