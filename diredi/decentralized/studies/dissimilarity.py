"""Which measure, which scheme, how much of it, how soft: three peers that teach each other.

After Molo, Vadicamo, Carlini, Gennaro, Connor, SISAP 2024, and the follow-up in FGCS 176, 2025. Three peers, all
neighbours of each other, share out a data set, evenly or with primary labels. Each learns its own labels; then its
auxiliary head learns from labels and from the neighbours' main heads, which answer for its private images. `alpha` 1 is
the comparison: the same steps on labels alone. Figures are of the auxiliary heads on the whole test set, where every
label counts alike.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from diredi.data.classification import ClassificationSet
from diredi.decentralized.network import MAIN, create
from diredi.decentralized.partitions import PartitionRecipe, partitioned
from diredi.decentralized.peer import Peer
from diredi.decentralized.recipe import DistillationRecipe, NetworkRecipe, TrainingRecipe
from diredi.decentralized.rounds import AUXILIARY, distilled
from diredi.decentralized.studies.base import Cell, Options, Study, data_of
from diredi.evaluation.findings import Json, Tables, kept, rows_of, target

PEERS = 3
SEEDS = (0, 1, 2)
MEASURES = ("ce", "kl", "js", "sed", "td", "msed")
SCHEMES = ("pairwise", "holistic")
ALPHAS = (0.0, 0.2, 0.5, 0.8)
TEMPERATURES = (1.0, 10.0, 100.0)
LABELS = "labels alone"
PARTITIONS: dict[str, Json] = {"iid": {"kind": "iid"}, "skewed": {"kind": "skew", "gamma": 15}}
NEIGHBOURS = {peer: [other for other in range(PEERS) if other != peer] for peer in range(PEERS)}


def cells(options: Options) -> list[Cell]:
    return [
        Cell(
            "/".join((ground["data"], ground["name"], f"seed-{ground['seed']}", form)),
            {**ground, "form": form, "distillation": recipe.model_dump()},
        )
        for ground in _grounds(options)
        for form, recipe in _forms(options).items()
    ]


def _grounds(options: Options) -> list[Json]:
    """Who learns what: a data set, how it is shared out, a seed."""
    return [
        {
            "data": data,
            "folder": options.folder_of(data),
            "images": images,
            "name": name,
            "partition": partition,
            "seed": seed,
            "network": NetworkRecipe(backbone="cnn").model_dump(),
            "training": TrainingRecipe(epochs=epochs, batch=32).model_dump(),
        }
        for data, images, epochs in (
            (("digits", 600, 2),) if options.quick else (("digits", 1200, 8), ("fashion_mnist", 6000, 3))
        )
        for (name, partition), seed in product(PARTITIONS.items(), SEEDS)
    ]


def _forms(options: Options) -> dict[str, DistillationRecipe]:
    """The whole grid as the papers have it; at alpha 0.5 also as the reference code does it, and with gradients
    matched."""
    grid = product(("paper",), MEASURES, SCHEMES, ALPHAS, TEMPERATURES)
    beside = product(("reference_code", "matched"), MEASURES, SCHEMES, (0.5,), TEMPERATURES[:2])
    names = ("mode", "measure", "scheme", "alpha", "temperature")
    asked = {_named(*one): dict(zip(names, one, strict=True)) for one in (*grid, *beside)}
    return {LABELS: DistillationRecipe(alpha=1)} | {
        form: DistillationRecipe.model_validate(values) for form, values in asked.items()
    }


def _named(mode: str, measure: str, scheme: str, alpha: float, temperature: float) -> str:
    return f"{measure}, {scheme}, alpha {alpha:g}, T {temperature:g}" + ("" if mode == "paper" else f", {mode}")


def measured(spec: Json, folder: Path) -> Json:
    """Of each peer, the accuracy on the whole test set of its auxiliary head, in percent; seconds of the processor."""
    data = data_of(spec)
    peers = _peers(spec, data, folder)
    began = time.process_time()
    distilled(peers, [NEIGHBOURS], DistillationRecipe(**spec["distillation"]), TrainingRecipe(**spec["training"]))
    took = time.process_time() - began
    return {"accuracy": [_accuracy(peer, AUXILIARY, data) for peer in peers], "seconds": took}


def _peers(spec: Json, data: ClassificationSet, folder: Path) -> list[Peer]:
    """Peers that have learned their labels: once for all cells of a ground."""
    labels = data.train.labels[: spec["images"]]
    shards = partitioned(labels, PEERS, PartitionRecipe(**spec["partition"]), spec["seed"])
    shape, classes = data.train.images.shape[1:], len(data.classes)
    seeds = [PEERS * spec["seed"] + number for number in range(PEERS)]
    peers = [
        Peer(
            f"peer-{seed % PEERS}",
            create(NetworkRecipe(**spec["network"]), shape, classes, seed),
            data.train.taken(shard),
            seed,
        )
        for seed, shard in zip(seeds, shards, strict=True)
    ]
    made_from = {name: value for name, value in spec.items() if name not in ("form", "distillation")}
    place = folder / spec["data"] / spec["name"] / f"seed-{spec['seed']}"

    def make() -> Json:
        for peer in peers:
            peer.learn_labels(TrainingRecipe(**spec["training"]))
            save_file(peer.network.state_dict(), place / f"{peer.name}.safetensors")
        return {"main": [_accuracy(peer, MAIN, data) for peer in peers]}

    kept(place / "main heads.json", made_from, make)
    for peer in peers:
        peer.network.load_state_dict(load_file(place / f"{peer.name}.safetensors"))
    return peers


def _accuracy(peer: Peer, head: int, data: ClassificationSet) -> float:
    said = peer.answers(torch.from_numpy(data.test.images), head).argmax(-1).numpy()
    return float(100 * np.mean(said == data.test.labels))


def rows(figures: dict[str, Json], options: Options) -> list[Json]:
    """The whole grid, a table for each data set and way of sharing it out, and each measure on average over it."""
    grounds = _grounds(options)
    seeds = [
        {
            table: columns
            for ground in grounds
            if ground["seed"] == seed
            for table, columns in _tables(ground, figures, list(_forms(options))).items()
        }
        for seed in SEEDS
    ]
    return rows_of(seeds)


def _tables(ground: Json, figures: dict[str, Json], forms: list[str]) -> Tables:
    place = f"{ground['data']}/{ground['name']}/seed-{ground['seed']}"
    alone = mean(figures[f"{place}/{LABELS}"]["accuracy"])

    def columns(form: str) -> dict[str, float]:
        found = figures[f"{place}/{form}"]
        accuracy = found["accuracy"]
        return {
            "accuracy": mean(accuracy),
            "above labels alone": mean(accuracy) - alone,
            "peers differ by": float(np.std(accuracy)),
            "seconds": found["seconds"],
        }

    whole, title = {form: columns(form) for form in forms}, f"{ground['data']}, {ground['name']}"
    short = {
        f"{measure}, {scheme}": _averaged(
            [whole[_named("paper", measure, scheme, *one)] for one in product(ALPHAS, TEMPERATURES)]
        )
        for measure, scheme in product(MEASURES, SCHEMES)
    }
    return {f"{title}: in short": {LABELS: whole[LABELS]} | short, title: whole}


def _averaged(columns: list[dict[str, float]]) -> dict[str, float]:
    return {name: mean(one[name] for one in columns) for name in columns[0]}


def targets(rows: list[Json]) -> list[Json]:
    """The claims of the papers, each judged on average over alpha and temperature, in points of accuracy."""
    return [one for data in dict.fromkeys(row["table"].split(", ")[0] for row in rows) for one in _claims(data, rows)]


def _claims(data: str, rows: list[Json]) -> list[Json]:
    def average(
        partition: str, column: str, measures: Sequence[str] = MEASURES, schemes: Sequence[str] = SCHEMES
    ) -> float:
        forms = [f"{measure}, {scheme}" for measure, scheme in product(measures, schemes)]
        table = [row for row in rows if row["table"] == f"{data}, {partition}: in short"]
        return float(mean(row[column]["mean"] for row in table if row["form"] in forms))

    gain = "above labels alone"
    by_scheme = [average("skewed", gain, schemes=[scheme]) for scheme in SCHEMES]
    seconds = [average("skewed", "seconds", schemes=[scheme]) for scheme in SCHEMES]
    others = average("skewed", gain, ["sed", "js", "td"]) - average("skewed", gain, ["ce", "kl"])
    return [
        target(f"{data}, iid: gain of the best measure", max(average("iid", gain, [one]) for one in MEASURES), "<", 1),
        target(f"{data}, skewed: gain of distillation", average("skewed", gain), ">", 0),
        target(f"{data}, skewed: holistic and pairwise differ by", abs(by_scheme[0] - by_scheme[1]), "<", 0.5),
        target(f"{data}, skewed: seconds of holistic over pairwise", seconds[1] / seconds[0], "<", 1),
        target(f"{data}, skewed: SED, JS and TD minus CE and KL", others, ">", -0.5),
    ]


def draw(rows: list[Json], title: str, path: Path) -> None:
    """For each data set, way of sharing it out and scheme a line of panels, one a temperature: bars of accuracy by
    alpha and measure, whiskers over the seeds, and labels alone as a line."""
    from matplotlib.figure import Figure

    tables = [table for table in dict.fromkeys(row["table"] for row in rows) if not table.endswith("in short")]
    lines = list(product(tables, SCHEMES))
    figure = Figure(figsize=(15, 2.6 * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), len(TEMPERATURES), squeeze=False, sharey="row")
    for (table, scheme), across in zip(lines, axes, strict=True):
        found = {row["form"]: row["accuracy"] for row in rows if row["table"] == table}
        for temperature, axis in zip(TEMPERATURES, across, strict=True):
            for number, measure in enumerate(MEASURES):
                ours = [found[_named("paper", measure, scheme, alpha, temperature)] for alpha in ALPHAS]
                low, middle, high = (np.array([one[what] for one in ours]) for what in ("low", "mean", "high"))
                reach = np.maximum([middle - low, high - middle], 0)
                axis.bar(np.arange(len(ALPHAS)) + 0.13 * number, middle, 0.13, yerr=reach, label=measure, capsize=1)
            alone = found[LABELS]
            axis.axhline(alone["mean"], color="black", linewidth=1, label=LABELS)
            axis.set_xticks(np.arange(len(ALPHAS)) + 0.13 * (len(MEASURES) - 1) / 2, [f"{alpha:g}" for alpha in ALPHAS])
            axis.set_title(f"{table}, {scheme}, T {temperature:g}", fontsize=9)
            axis.set_ylim(max(0, alone["low"] - 25), min(100, alone["high"] + 10))
        across[0].set_ylabel("accuracy, percent")
    for axis in axes[-1]:
        axis.set_xlabel("alpha, the weight of labels")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(MEASURES) + 1)
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


DISSIMILARITY = Study(
    "dissimilarity",
    "three peers: which measure, which scheme, how much, how soft",
    cells,
    measured,
    rows,
    targets,
    draw,
)
