"""Detectors as peers: four sites with skewed classes, alone, averaged, and teaching each other by each measure.

Images of the built-in scenes are dealt to four sites by the class that they show most, with primary classes. Every
site first learns its own labels. Then, for half as long: "alone" goes on so; the others learn labels and what their
three neighbours say together of the same images, class scores by the measure named and boxes by their distributions,
as Molo et al. have it for classification (holistic, one-shot). "FedAvg" averages all weights after every round
(McMahan et al., AISTATS 2017), from the same first weights and over as many epochs as the others have in all. For
detection nobody has published these measures. Metrics are of the four detectors on held-out images of all sites, and of
each on its own, in percent; seconds are the processor's, of what follows the labels, and of all of FedAvg.
"""

from __future__ import annotations

import time
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np

from diredi.data.dataset import DataSet, load
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
    """mAP50-95 and mAP50 of each site's detector on all held-out images and on its own; seconds of the processor."""
    whole, sites = _sites(spec, folder)
    detectors = _create_detectors(spec, sites) if spec["form"] == FEDAVG else _train_on_labels(spec, sites, folder)
    began = time.process_time()
    if spec["form"] == FEDAVG:
        _train_fedavg(detectors, sites, spec)
    elif spec["form"] != MAIN:
        _train_with_neighbours(detectors, sites, spec)
    took = time.process_time() - began
    return {"sites": [_evaluate(one, whole, site) for one, site in zip(detectors, sites, strict=True)], "seconds": took}


def _sites(spec: Json, folder: Path) -> tuple[DataSet, list[DataSet]]:
    whole = load(resolve("scenes:presumed", folder / "data", spec["seed"], *spec["images"]))
    return whole, partition_sites(whole, SITES, PartitionRecipe(**spec["partition"]), spec["seed"])


def _create_detectors(spec: Json, sites: list[DataSet]) -> list[Detector]:
    """All alike."""
    labels = LabelSpace(names=sites[0].names)
    return [registry.create(spec["architecture"], spec["size"], labels, spec["seed"]) for _ in sites]


def _train_on_labels(spec: Json, sites: list[DataSet], folder: Path) -> list[Detector]:
    """Detectors that have learned their own labels: once for all forms."""
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


def _train_with_neighbours(detectors: list[Detector], sites: list[DataSet], spec: Json) -> None:
    """All listen to what the others were before."""
    before = [registry.from_weights(one.spec, one.weights(), one.device) for one in detectors]
    losses = {} if spec["form"] == ALONE else {spec["form"]: 1.0, "boxes": 1.0}
    for number, (detector, site) in enumerate(zip(detectors, sites, strict=True)):
        others = EnsembleTeacher([other for index, other in enumerate(before) if index != number])
        teacher = others if losses else None
        train(detector, site.train, _recipe(spec, 1).model_copy(update={"losses": losses}), teacher=teacher)


def _train_fedavg(detectors: list[Detector], sites: list[DataSet], spec: Json) -> None:
    """Rounds of local training and a mean weighted by images. The learning rate falls from round to round."""
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
    """Counters of batches stay each detector's own: the mean of two counts counts nothing."""
    mine = [one.weights() for one in detectors]
    shared = [one.selected(lambda name: kind_of(name, str(mine[0][name].dtype)) is not KeyKind.COUNTER) for one in mine]
    together = average(shared, shares, MergeRecipe())
    for detector, own in zip(detectors, mine, strict=True):
        detector.load_weights(WeightMap({**own, **together}))


def _recipe(spec: Json, phase: int) -> TrainRecipe:
    seed = 100 * spec["seed"] + 20 * phase
    return TrainRecipe.model_validate({**spec["training"], "epochs": spec["epochs"][phase], "seed": seed})


def _evaluate(detector: Detector, whole: DataSet, site: DataSet) -> dict[str, float]:
    everywhere = evaluate(detector, whole.val, detector.spec.labels)
    own = evaluate(detector, site.val, detector.spec.labels) if site.val else everywhere
    return {
        "all sites: mAP50-95": 100 * everywhere.map50_95,
        "all sites: mAP50": 100 * everywhere.map50,
        "own: mAP50-95": 100 * own.map50_95,
    }


def rows(figures: dict[str, Json], options: Options) -> list[Json]:
    def tables(seed: int) -> Tables:
        return {"four sites": {form: _columns(figures[f"seed-{seed}/{form}"]) for form in (MAIN, *FORMS)}}

    return rows_of([tables(seed) for seed in SEEDS])


def _columns(found: Json) -> dict[str, float]:
    sites = found["sites"]
    columns = {name: mean(site[name] for site in sites) for name in sites[0]}
    return {
        **columns,
        "sites differ by": float(np.std([s["all sites: mAP50-95"] for s in sites])),
        "seconds": found["seconds"],
    }


def targets(rows: list[Json]) -> list[Json]:
    found = {row["form"]: row["all sites: mAP50-95"]["mean"] for row in rows}
    others, usual = (mean(found[one] for one in group) for group in (("sed", "js", "td"), ("ce", "kl")))
    return [
        target("best measure minus alone, mAP50-95", max(found[one] for one in MEASURES) - found[ALONE], ">", 0),
        target("best measure minus FedAvg, mAP50-95", max(found[one] for one in MEASURES) - found[FEDAVG], ">", 0),
        target("SED, JS and TD minus CE and KL, mAP50-95", others - usual, ">", 0),
    ]


def draw(rows: list[Json], title: str, path: Path) -> None:
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
