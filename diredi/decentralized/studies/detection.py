"""Detectors as peers: four sites with skewed classes, alone, averaged, or teaching each other by each dissimilarity.

Images of the built-in scenes are split between four sites by the class that they show most, with primary classes. Every
site first learns its own labels. Then, for half as long, "alone" goes on in the same way; the others learn labels and
the joint predictions of their three neighbours for the same images, class scores by the dissimilarity that is named and
boxes by their distributions. This is the holistic, one-shot scheme of Molo et al. for classification. "FedAvg" averages
all weights after every round (McMahan et al., AISTATS 2017), from the same first weights and over as many epochs as the
others have in all. We know of no published use of these dissimilarities for detection. Metrics are those of the four
detectors on held-out images of all sites, and of each on its own, in percent; seconds are processor seconds of what
follows the labels, and of all of FedAvg.
"""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np

from diredi.data.dataset import Dataset, load
from diredi.data.sources import resolve
from diredi.decentralized.detectors import EnsembleTeacher
from diredi.decentralized.partitions import PartitionRecipe
from diredi.decentralized.partitions.sites import partition_sites
from diredi.decentralized.studies.base import Cell, Options, Study
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.evaluation.detection import evaluate
from diredi.evaluation.study_results import Json, Tables, cached, rows_of, target
from diredi.knowledge.merging.base import MergeRecipe
from diredi.knowledge.merging.mean import mean as average
from diredi.knowledge.weight_kinds import KeyKind, kind_of
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

SITES, SEEDS, ROUNDS = 4, (0, 1, 2), 12
ALONE, FEDAVG, MAIN = "alone", "FedAvg", "after their own labels"
MEASURES = ("ce", "kl", "js", "sed", "td", "msed")
FORMS = (ALONE, FEDAVG, *MEASURES)


def cells(options: Options) -> list[Cell]:
    """Return the cells of the study."""
    quick = options.quick
    shared: Json = {
        "images": (64, 32) if quick else (480, 160),
        "size": 64 if quick else 128,
        "architecture": "yolo11-w0.125",
        "partition": PartitionRecipe(kind="skew", gamma=15).model_dump(),
        "training": {"batch": 4, "learning_rate": 4e-3},
        "epochs": (1, 0.5) if quick else (12, 6),
    }
    return [
        Cell(f"seed-{seed}/{form}", {**shared, "seed": seed, "form": form})
        for form, seed in product((MAIN, *FORMS), SEEDS)
    ]


def measure(spec: Json, folder: Path) -> Json:
    """Measure each site's mAP50-95 and mAP50 on all held-out images and its own, and processor seconds."""
    whole, sites = _sites(spec, folder)
    detectors = _create_detectors(spec, sites) if spec["form"] == FEDAVG else _train_on_labels(spec, sites, folder)
    began = time.process_time()
    if spec["form"] == FEDAVG:
        _train_fedavg(detectors, sites, spec)
    elif spec["form"] != MAIN:
        _train_with_neighbours(detectors, sites, spec)
    took = time.process_time() - began
    return {
        "sites": [_evaluate(detector, whole, site) for detector, site in zip(detectors, sites, strict=True)],
        "seconds": took,
    }


def _sites(spec: Json, folder: Path) -> tuple[Dataset, list[Dataset]]:
    whole = load(resolve("scenes:presumed", folder / "data", spec["seed"], *spec["images"]))
    return whole, partition_sites(whole, SITES, PartitionRecipe(**spec["partition"]), spec["seed"])


def _create_detectors(spec: Json, sites: list[Dataset]) -> list[Detector]:
    """Create a detector for each site, all with the same random weights."""
    labels = LabelSpace(names=sites[0].names)
    return [registry.create(spec["architecture"], spec["size"], labels, spec["seed"]) for _ in sites]


def _train_on_labels(spec: Json, sites: list[Dataset], folder: Path) -> list[Detector]:
    """Train each site's detector on its own labels; cached for all forms."""
    made_from = {name: value for name, value in spec.items() if name != "form"}
    place, detectors = folder / f"seed-{spec['seed']}", _create_detectors(spec, sites)
    paths = [place / f"site-{number}.safetensors" for number in range(SITES)]

    def make() -> Json:
        for detector, site, path in zip(detectors, sites, paths, strict=True):
            train(detector, site.train, _recipe(spec, 0))
            detector.weights().save(path)
        return {}

    cached(place / "main.json", made_from, make)
    for detector, path in zip(detectors, paths, strict=True):
        detector.load_weights(WeightMap.load(path))
    return detectors


def _train_with_neighbours(detectors: list[Detector], sites: list[Dataset], spec: Json) -> None:
    """Train each detector with the others, as they were before, as teachers."""
    before = [registry.from_weights(each.spec, each.weights(), each.device) for each in detectors]
    losses = {} if spec["form"] == ALONE else {spec["form"]: 1.0, "boxes": 1.0}
    for number, (detector, site) in enumerate(zip(detectors, sites, strict=True)):
        others = EnsembleTeacher([other for index, other in enumerate(before) if index != number])
        teacher = others if losses else None
        train(detector, site.train, _recipe(spec, 1).model_copy(update={"losses": losses}), teacher=teacher)


def _train_fedavg(detectors: list[Detector], sites: list[Dataset], spec: Json) -> None:
    """Train by FedAvg, weighted by images. The learning rate falls from round to round."""
    images = [len(site.train) for site in sites]
    shares = [count / sum(images) for count in images]
    whole = _recipe(spec, 0)
    for number in range(ROUNDS):
        rest = 1 - number / ROUNDS
        rate = {"learning_rate": whole.learning_rate * rest, "final_learning_rate": (rest - 1 / ROUNDS) / rest}
        length = {"epochs": sum(spec["epochs"]) / ROUNDS, "seed": whole.seed + number}
        recipe = whole.model_copy(update={**length, **rate})
        for detector, site in zip(detectors, sites, strict=True):
            train(detector, site.train, recipe)
        _average_weights(detectors, shares)


def _average_weights(detectors: list[Detector], shares: list[float]) -> None:
    """Average the detectors' weights. Batch counters stay each detector's own, for a mean of counts has no meaning."""
    own_weights = [detector.weights() for detector in detectors]
    dtypes = {name: str(array.dtype) for name, array in own_weights[0].items()}
    shared = [own.selected(lambda name: kind_of(name, dtypes[name]) is not KeyKind.COUNTER) for own in own_weights]
    mean_weights = average(shared, shares, MergeRecipe())
    for detector, own in zip(detectors, own_weights, strict=True):
        detector.load_weights(WeightMap({**own, **mean_weights}))


def _recipe(spec: Json, phase: int) -> TrainRecipe:
    seed = 100 * spec["seed"] + 20 * phase
    return TrainRecipe.model_validate({**spec["training"], "epochs": spec["epochs"][phase], "seed": seed})


def _evaluate(detector: Detector, whole: Dataset, site: Dataset) -> dict[str, float]:
    everywhere = evaluate(detector, whole.val, detector.spec.labels)
    own = evaluate(detector, site.val, detector.spec.labels) if site.val else everywhere
    return {
        "all sites: mAP50-95": 100 * everywhere.map50_95,
        "all sites: mAP50": 100 * everywhere.map50,
        "own: mAP50-95": 100 * own.map50_95,
    }


def rows(metrics: dict[str, Json], options: Options) -> list[Json]:
    """Build the rows of the result."""

    def tables(seed: int) -> Tables:
        return {"four sites": {form: _columns(metrics[f"seed-{seed}/{form}"]) for form in (MAIN, *FORMS)}}

    return rows_of([tables(seed) for seed in SEEDS])


def _columns(cell: Json) -> dict[str, float]:
    sites = cell["sites"]
    columns = {name: mean(site[name] for site in sites) for name in sites[0]}
    return {
        **columns,
        "sites differ by": float(np.std([s["all sites: mAP50-95"] for s in sites])),
        "seconds": cell["seconds"],
    }


def targets(rows: list[Json]) -> list[Json]:
    """Judge the claims of the study."""
    map50_95 = {row["form"]: row["all sites: mAP50-95"]["mean"] for row in rows}
    others, usual = (mean(map50_95[name] for name in group) for group in (("sed", "js", "td"), ("ce", "kl")))
    best = max(map50_95[name] for name in MEASURES)
    return [
        target("best measure minus alone, mAP50-95", best - map50_95[ALONE], ">", 0),
        target("best measure minus FedAvg, mAP50-95", best - map50_95[FEDAVG], ">", 0),
        target("SED, JS and TD minus CE and KL, mAP50-95", others - usual, ">", 0),
    ]


def draw(rows: list[Json], title: str, path: Path) -> None:
    """Draw bars of mAP50-95 by form."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    for number, column in enumerate(("all sites: mAP50-95", "own: mAP50-95")):
        low, middle, high = (np.array([row[column][what] for row in rows]) for what in ("low", "mean", "high"))
        reach = np.maximum([middle - low, high - middle], 0)
        axis.bar(np.arange(len(rows)) + 0.4 * number, middle, 0.4, yerr=reach, label=column, capsize=2)
    axis.set_xticks(np.arange(len(rows)) + 0.2, [row["form"] for row in rows], rotation=20, ha="right")
    axis.set_ylabel("percent; whiskers: seeds")
    axis.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


DETECTION = Study(
    "detection",
    "four sites' detectors: alone, averaged, or taught by each measure",
    cells,
    measure,
    rows,
    targets,
    draw,
)
