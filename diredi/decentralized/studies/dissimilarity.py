"""Three peers that teach each other: dissimilarities, schemes, weights of the labels, and temperatures.

After Molo, Vadicamo, Carlini, Gennaro, Connor, SISAP 2024, and the follow-up in FGCS 176, 2025. A data set is split
between three peers that are all neighbours, evenly or with primary labels. Each learns its own labels; then its
auxiliary head learns from labels and from the neighbours' main heads, which predict its private images. With `alpha` 1,
the baseline, the same steps learn from labels alone. Metrics are those of the auxiliary heads on the whole test set,
where every label has the same weight.

Digits and Fashion-MNIST use a small network and the whole grid. CIFAR-10 uses ResNet-18: on CPUs only with alpha 0.5,
temperatures 1 and 10, and few images, for lack of time; on a GPU with the whole grid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from diredi.data.classification import ClassificationSet
from diredi.decentralized.network import MAIN, create_network
from diredi.decentralized.partitions import PartitionRecipe, partition_labels
from diredi.decentralized.peer import Peer
from diredi.decentralized.recipe import DistillationRecipe, NetworkRecipe, TrainingRecipe
from diredi.decentralized.rounds import AUXILIARY, distil
from diredi.decentralized.studies.base import Cell, Options, Study, data_of
from diredi.evaluation.study_results import Json, Tables, cached, rows_of, target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PEERS = 3
SEEDS = (0, 1, 2)
MEASURES = ("ce", "kl", "js", "sed", "td", "msed")
SCHEMES = ("pairwise", "holistic")
ALPHAS = (0.0, 0.2, 0.5, 0.8)
TEMPERATURES = (1.0, 10.0, 100.0)
LABELS = "labels alone"
PARTITIONS: dict[str, Json] = {"iid": {"kind": "iid"}, "skewed": {"kind": "skew", "gamma": 15}}
PARTS: dict[str, Callable[[DistillationRecipe], bool]] = {
    "": lambda recipe: recipe.mode == "paper",
    ", temperature 1": lambda recipe: recipe.mode == "paper" and recipe.temperature == 1,
    ", gradients matched": lambda recipe: recipe.mode == "matched",
}
"""Parts of the grid over which results are averaged. Without T squared, the gradients at temperatures of 10 and 100
hardly move a head, whatever the dissimilarity; matched ones move all heads equally."""
NEIGHBOURS = {peer: [other for other in range(PEERS) if other != peer] for peer in range(PEERS)}


@dataclass(frozen=True)
class Plan:
    """How much of a data set is used, and which part of the grid."""

    data: str
    images: int
    """Number of training images that are split between the peers, the first of the set."""
    test: int
    """Number of test images, the first of the set."""
    network: NetworkRecipe
    first: TrainingRecipe
    """Training of the main heads on labels."""
    training: TrainingRecipe
    """Training of the auxiliary heads."""
    whole: bool = True
    """Use the whole grid, and not only alpha 0.5 with temperatures 1 and 10."""
    device: str = "cpu"


def _plans(options: Options) -> list[Plan]:
    cnn, resnet = NetworkRecipe(backbone="cnn"), NetworkRecipe(backbone="resnet18")

    def epochs(number: float) -> TrainingRecipe:
        return TrainingRecipe(epochs=number, batch=32)

    if options.quick:
        return [Plan("digits", 600, 360, cnn, epochs(2), epochs(2))]
    digits = Plan("digits", 1200, 360, cnn, epochs(8), epochs(8))
    fashion = Plan("fashion_mnist", 1200, 1000, cnn, epochs(3), epochs(3))
    if torch.cuda.is_available():
        half = NetworkRecipe(backbone="resnet18", precision="bf16")
        return [digits, fashion, Plan("cifar10", 10000, 2000, half, epochs(20), epochs(5), device="cuda")]
    return [digits, fashion, Plan("cifar10", 300, 300, resnet, epochs(12), epochs(1), whole=False)]


def cells(options: Options) -> list[Cell]:
    """Return the cells of the study."""
    grid = [
        Cell(
            "/".join((plan.data, name, f"seed-{seed}", form)),
            {
                "data": plan.data,
                "folder": options.folder_of(plan.data),
                "images": plan.images,
                "test": plan.test,
                "name": name,
                "partition": partition,
                "seed": seed,
                "network": plan.network.model_dump(),
                "device": plan.device,
                "first": plan.first.model_dump(),
                "training": plan.training.model_dump(),
                "form": form,
                "distillation": recipe.model_dump(),
            },
        )
        for plan, (name, partition), seed in product(_plans(options), PARTITIONS.items(), SEEDS)
        for form, recipe in _forms(plan.whole).items()
    ]
    # The main heads are trained once for all cells with the same data: one such cell each comes first, then all others.
    return sorted(grid, key=lambda cell: bool(cell.spec["form"] != LABELS))


def _forms(whole: bool) -> dict[str, DistillationRecipe]:
    """Return the grid of the papers and, at alpha 0.5, that of the reference code and that of matched gradients."""
    low = TEMPERATURES[:2]
    grid = product(("paper",), MEASURES, SCHEMES, ALPHAS, TEMPERATURES) if whole else _at_half(("paper",), low)
    beside = _at_half(("reference_code", "matched"), low) if whole else ()
    names = ("mode", "measure", "scheme", "alpha", "temperature")
    forms = {_form_name(*values): dict(zip(names, values, strict=True)) for values in (*grid, *beside)}
    return {LABELS: DistillationRecipe(alpha=1)} | {
        form: DistillationRecipe.model_validate(values) for form, values in forms.items()
    }


def _at_half(modes: Sequence[str], temperatures: Sequence[float]) -> product[tuple[str, str, str, float, float]]:
    return product(modes, MEASURES, SCHEMES, (0.5,), temperatures)


def _form_name(mode: str, measure: str, scheme: str, alpha: float, temperature: float) -> str:
    return f"{measure}, {scheme}, alpha {alpha:g}, T {temperature:g}" + ("" if mode == "paper" else f", {mode}")


def measure(spec: Json, folder: Path) -> Json:
    """Measure the accuracy of each peer's auxiliary head on the whole test set, in percent, and processor seconds."""
    data = data_of(spec)
    peers = _peers(spec, data, folder)
    began = time.process_time()
    distil(peers, [NEIGHBOURS], DistillationRecipe(**spec["distillation"]), TrainingRecipe(**spec["training"]))
    took = time.process_time() - began
    return {"accuracy": [_accuracy(peer, AUXILIARY, data, spec["test"]) for peer in peers], "seconds": took}


def _peers(spec: Json, data: ClassificationSet, folder: Path) -> list[Peer]:
    """Train peers on their labels; cached for all cells with the same data."""
    labels = data.train.labels[: spec["images"]]
    shards = partition_labels(labels, PEERS, PartitionRecipe(**spec["partition"]), spec["seed"])
    shape, classes = data.train.images.shape[1:], len(data.classes)
    seeds = [PEERS * spec["seed"] + number for number in range(PEERS)]
    peers = [
        Peer(
            f"peer-{seed % PEERS}",
            create_network(NetworkRecipe(**spec["network"]), shape, classes, seed).to(spec["device"]),
            data.train.select(shard),
            seed,
        )
        for seed, shard in zip(seeds, shards, strict=True)
    ]
    made_from = {name: value for name, value in spec.items() if name not in ("form", "distillation")}
    place = folder / spec["data"] / spec["name"] / f"seed-{spec['seed']}"

    def make() -> Json:
        for peer in peers:
            peer.learn_labels(TrainingRecipe(**spec["first"]))
            save_file(peer.network.state_dict(), place / f"{peer.name}.safetensors")
        return {"main": [_accuracy(peer, MAIN, data, spec["test"]) for peer in peers]}

    cached(place / "main heads.json", made_from, make)
    for peer in peers:
        peer.network.load_state_dict(load_file(place / f"{peer.name}.safetensors"))
    return peers


def _accuracy(peer: Peer, head: int, data: ClassificationSet, test: int) -> float:
    classes = peer.predict_logits(torch.from_numpy(data.test.images[:test]), head).argmax(-1).cpu().numpy()
    return float(100 * np.mean(classes == data.test.labels[:test]))


def rows(metrics: dict[str, Json], options: Options) -> list[Json]:
    """Build a table of the whole grid for each data set and partition, and tables of averages by dissimilarity."""
    seeds = [
        {
            table: columns
            for plan, name in product(_plans(options), PARTITIONS)
            for table, columns in _tables(plan, name, seed, metrics).items()
        }
        for seed in SEEDS
    ]
    return rows_of(seeds)


def _tables(plan: Plan, name: str, seed: int, metrics: dict[str, Json]) -> Tables:
    place, forms = f"{plan.data}/{name}/seed-{seed}", _forms(plan.whole)
    alone = mean(metrics[f"{place}/{LABELS}"]["accuracy"])

    def columns(form: str) -> dict[str, float]:
        cell = metrics[f"{place}/{form}"]
        accuracy = cell["accuracy"]
        return {
            "accuracy": mean(accuracy),
            "above labels alone": mean(accuracy) - alone,
            **{f"peer {number}": value for number, value in enumerate(accuracy, start=1)},
            "seconds": cell["seconds"],
        }

    whole, title = {form: columns(form) for form in forms}, f"{plan.data}, {name}"
    short = {}
    for part, holds in PARTS.items():
        chosen = {form: recipe for form, recipe in forms.items() if form != LABELS and holds(recipe)}
        if chosen:
            short[f"{title}{part}: in short"] = {LABELS: whole[LABELS]} | _by_measure(chosen, whole)
    return {**short, title: whole}


def _by_measure(
    forms: dict[str, DistillationRecipe], whole: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    return {
        f"{measure}, {scheme}": _average(
            [whole[form] for form, recipe in forms.items() if (recipe.measure, recipe.scheme) == (measure, scheme)]
        )
        for measure, scheme in product(MEASURES, SCHEMES)
    }


def _average(columns: list[dict[str, float]]) -> dict[str, float]:
    return {name: mean(each[name] for each in columns) for name in columns[0]}


def targets(rows: list[Json]) -> list[Json]:
    """Judge the claims of the papers, in points of accuracy, averaged over each part of the grid."""
    tables = dict.fromkeys(row["table"] for row in rows)
    return [
        claim
        for data in dict.fromkeys(table.split(", ")[0] for table in tables)
        for part in PARTS
        if f"{data}, skewed{part}: in short" in tables
        for claim in _claims(data, part, rows)
    ]


def _claims(data: str, part: str, rows: list[Json]) -> list[Json]:
    def average(
        partition: str, column: str, measures: Sequence[str] = MEASURES, schemes: Sequence[str] = SCHEMES
    ) -> float:
        forms = [f"{measure}, {scheme}" for measure, scheme in product(measures, schemes)]
        table = [row for row in rows if row["table"] == f"{data}, {partition}{part}: in short"]
        return float(mean(row[column]["mean"] for row in table if row["form"] in forms))

    gain, iid, skewed = "above labels alone", f"{data}, iid{part}", f"{data}, skewed{part}"
    by_scheme = [average("skewed", gain, schemes=[scheme]) for scheme in SCHEMES]
    seconds = [average("skewed", "seconds", schemes=[scheme]) for scheme in SCHEMES]
    best_iid = max(average("iid", gain, [name]) for name in MEASURES)
    others = average("skewed", gain, ["sed", "js", "td"]) - average("skewed", gain, ["ce", "kl"])
    return [
        target(f"{iid}: gain of the best measure", best_iid, "<", 1),
        target(f"{skewed}: gain of distillation", average("skewed", gain), ">", 0),
        target(f"{skewed}: holistic and pairwise differ by", abs(by_scheme[0] - by_scheme[1]), "<", 0.5),
        target(f"{skewed}: seconds of holistic over pairwise", seconds[1] / seconds[0], "<", 1),
        target(f"{skewed}: SED, JS and TD minus CE and KL", others, ">", -0.5),
    ]


def draw(rows: list[Json], title: str, path: Path) -> None:
    """Draw a row of panels for each data set, partition and scheme, with one panel for each temperature.

    Bars are accuracy by alpha and dissimilarity, whiskers the seeds; a line is the accuracy with labels alone.
    """
    from matplotlib.figure import Figure

    tables = [table for table in dict.fromkeys(row["table"] for row in rows) if not table.endswith("in short")]
    lines = list(product(tables, SCHEMES))
    figure = Figure(figsize=(15, 2.6 * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), len(TEMPERATURES), squeeze=False, sharey="row")
    for (table, scheme), across in zip(lines, axes, strict=True):
        accuracy = {row["form"]: row["accuracy"] for row in rows if row["table"] == table}
        for temperature, axis in zip(TEMPERATURES, across, strict=True):
            axis.set_title(f"{table}, {scheme}, T {temperature:g}", fontsize=9)
            _draw_panel(axis, accuracy, scheme, temperature)
        across[0].set_ylabel("accuracy, percent")
    for axis in axes[-1]:
        axis.set_xlabel("alpha, the weight of labels")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(MEASURES) + 1)
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


def _draw_panel(axis: Axes, accuracy: dict[str, Json], scheme: str, temperature: float) -> None:
    """Draw one panel; write "not measured" where the grid has no such cells."""
    width, alone = 0.13, accuracy[LABELS]
    alphas = [alpha for alpha in ALPHAS if _form_name("paper", MEASURES[0], scheme, alpha, temperature) in accuracy]
    if not alphas:
        axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes)
        return
    for number, measure in enumerate(MEASURES):
        values = [accuracy[_form_name("paper", measure, scheme, alpha, temperature)] for alpha in alphas]
        low, middle, high = (np.array([value[what] for value in values]) for what in ("low", "mean", "high"))
        reach = np.maximum([middle - low, high - middle], 0)
        axis.bar(np.arange(len(alphas)) + width * number, middle, width, yerr=reach, label=measure, capsize=1)
    axis.axhline(alone["mean"], color="black", linewidth=1, label=LABELS)
    axis.set_xticks(np.arange(len(alphas)) + width * (len(MEASURES) - 1) / 2, [f"{alpha:g}" for alpha in alphas])
    axis.set_ylim(max(0, alone["low"] - 25), min(100, alone["high"] + 10))


DISSIMILARITY = Study(
    "dissimilarity",
    "three peers: which measure, which scheme, how much, how soft",
    cells,
    measure,
    rows,
    targets,
    draw,
)
