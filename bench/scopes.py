"""Whom a release is for, a part of `bench/sites.py`: cameras with one student for all, or with one of their own.

    student                as it came
    one for all            one student has learned from the images of all cameras: the fleet's release
    one for all, longer    the same, in as many steps more as a student of one camera gets
    one for a cluster      for each of two clusters, the fleet's release has learned their images
    one for a camera       for each camera, the fleet's release has learned its images
    fleet plus overlay     the fleet's release with each camera's batch-norm statistics, where that finds more

Cameras are in one cluster if their pictures are alike in light, colour, sharpness and noise (`diredi.data.style`).
"mAP50-95" and "mAP50" are of each camera's held-out images. An overlay is judged on the first half of them, as a site
does before it uses one, and all forms are measured on the other half. "MB" is what a camera downloads, "made, MB" the
weight of all that is made and kept, both in millions of bytes; an overlay's bytes stay at the site. "cpu s" is what
making all of it takes, beyond the fleet's release.

Real cameras, where there are any: six traffic cameras with COCO's YOLOv8n. Built-in: four sites with the starter
release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from environment import QUICK, REAL
from report import Json, cached, seconds, target
from scipy.cluster.hierarchy import fcluster, linkage

from cloud_server import starter
from diredi.data.dataset import Dataset, Sample, load
from diredi.data.sources import resolve
from diredi.data.style import measure_style
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.export import export_onnx
from diredi.distillation.distil import distil
from diredi.evaluation.detection import evaluate
from diredi.knowledge.overlay import Overlay, fit_overlay

TABLE: Final = "scope: "
MEAN: Final = "mean"
CLUSTERS: Final = 2
COLUMNS = ("mAP50-95", "mAP50")
BUILT_IN: Final = ("presumed", "site-1", "site-2", "car-park")
IMAGES = (8, 4) if QUICK else (100, 60)
SIZE = 64 if QUICK else 320
GENTLE: Json = {
    "batch": 8, "precision": "bf16", "learning_rate": 2e-4, "batch_norm": "frozen", "train_only": ["neck", "head"],
}  # fmt: skip
"""For what COCO has taught: a few dozen images must not undo it."""
BRISK: Json = {"batch": 8, "precision": "bf16", "learning_rate": 1e-3}


@dataclass(frozen=True)
class Fleet:
    """Cameras with a student before it has learned of them."""

    name: str
    cameras: Mapping[str, Dataset]
    """In the label space of the student."""
    student: Detector
    training: Json
    steps: tuple[int, int]
    """For all cameras together, and for one camera or cluster."""


def fleets(seed: int, folder: Path) -> list[Fleet]:
    """Built-in sites and, where there are any, real cameras."""
    sites = {name: load(resolve(f"scenes:{name}", folder / "data", 1000 + seed, *IMAGES)) for name in BUILT_IN}
    student = registry.load(starter.unpack(folder / "models").student)
    labels = student.labels.expand(name for data in sites.values() for name in data.names)
    steps = (2, 1) if QUICK else (200, 60)
    cameras = {name: data.with_labels(labels) for name, data in sites.items()}
    found = [Fleet("built-in sites", cameras, student.expand_classes(labels), BRISK, steps)]
    path = REAL / "detection" / "traffic_cams" / "data.yaml"
    if path.is_file():
        student = registry.load(REAL / "weights" / "yolov8n.pt", image_size=SIZE)
        roads = load(path).renamed({"bike": "motorcycle"}).with_labels(student.labels).by_camera()
        if QUICK:
            roads = {name: replace(one, train=one.train[:4], val=one.val[:4]) for name, one in list(roads.items())[:3]}
        steps = (2, 1) if QUICK else (72, 24)
        found.append(Fleet("traffic cameras", roads, student, GENTLE, steps))
    return found


def tables(seed: int, folder: Path) -> dict[str, Json]:
    """A table for each fleet and form of release: its mean over the cameras, and what it weighs and takes."""
    found: dict[str, Json] = {}
    for fleet in fleets(seed, folder):
        images = {name: [len(data.train), len(data.val)] for name, data in fleet.cameras.items()}
        size = fleet.student.spec.image_size
        made_from = {"seed": seed, "training": fleet.training, "steps": fleet.steps, "size": size, "images": images}
        place = folder / f"seed-{seed}"
        cell = cached(place / f"{fleet.name}.json", made_from, partial(measure, fleet, seed, place / "models"))
        found[f"{TABLE}{fleet.name}"] = {form: figures | cell["cost"][form] for form, figures in cell["mean"].items()}
        for camera, forms in cell["cameras"].items():
            found[f"{TABLE}{fleet.name}, {camera}"] = forms
    return found


def measure(fleet: Fleet, seed: int, folder: Path) -> Json:
    """Figures of every form at every camera, their means, and what each form costs."""
    made = Made(fleet, seed, folder)
    everybody = [sample for data in fleet.cameras.values() for sample in data.train]
    all_steps, own_steps = fleet.steps
    release = made.taught("fleet", fleet.student, everybody, all_steps)
    clusters = clusters_of(fleet.cameras)
    longer = made.taught("longer", release, everybody, own_steps)
    grouped = {
        number: made.taught(f"cluster-{number}", release, everybody_of(fleet, clusters, number), own_steps)
        for number in sorted(set(clusters.values()))
    }
    own = {name: made.taught(name, release, data.train, own_steps) for name, data in fleet.cameras.items()}
    overlaid = {name: made.overlaid(name, release, data) for name, data in fleet.cameras.items()}
    forms: dict[str, Callable[[str], Detector]] = {
        "student": lambda _: fleet.student,
        "one for all": lambda _: release,
        "one for all, longer": lambda _: longer,
        "one for a cluster": lambda camera: grouped[clusters[camera]],
        "one for a camera": lambda camera: own[camera],
        "fleet plus overlay": lambda camera: overlaid[camera],
    }
    cameras = {
        name: {form: figures(of(name), judging(data)[1], fleet) for form, of in forms.items()}
        for name, data in fleet.cameras.items()
    }
    mean = {
        form: {column: float(np.mean([one[form][column] for one in cameras.values()])) for column in COLUMNS}
        for form in forms
    }
    students = {
        "student": [], "one for all": [], "one for all, longer": ["longer"],
        "one for a cluster": [f"cluster-{number}" for number in grouped], "one for a camera": list(own),
        "fleet plus overlay": [f"overlay {name}" for name in own],
    }  # fmt: skip
    cost = {form: made.cost(form, names) for form, names in students.items()}
    return {"cameras": cameras, "mean": mean, "cost": cost, "clusters": clusters}


class Made:
    """What has been made for a fleet: how many bytes each has, and how many seconds it took."""

    def __init__(self, fleet: Fleet, seed: int, folder: Path) -> None:
        self._fleet, self._seed, self._folder = fleet, seed, folder
        self._bytes: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def taught(self, name: str, start: Detector, samples: Sequence[Sample], steps: int) -> Detector:
        data = Dataset(self._folder, self._fleet.student.labels.names, list(samples), [])
        began = seconds()
        recipe = {**self._fleet.training, "steps": steps, "seed": self._seed}
        student = distil(start, data, recipe=recipe, labels=self._fleet.student.labels)
        self._seconds[name] = seconds() - began
        export_onnx(student, self._folder / "student.onnx")
        self._bytes[name] = (self._folder / "student.onnx").stat().st_size
        return student

    def overlaid(self, camera: str, release: Detector, data: Dataset) -> Detector:
        """The release with the overlay of a camera, where the first half of its held-out images are for that."""
        began = seconds()
        overlay = fit_overlay(release, replace(data, val=judging(data)[0])).overlay
        self._seconds[f"overlay {camera}"] = seconds() - began
        self._bytes[f"overlay {camera}"] = bytes_of(overlay, self._folder / "overlay.safetensors")
        return release if overlay is None else overlay.apply(release)

    def cost(self, form: str, names: Sequence[str]) -> Json:
        release = self._bytes["fleet"]
        download = 0 if form == "student" else release
        kept = sum(self._bytes[name] for name in names)
        kept += release if form in ("one for all", "fleet plus overlay") else 0
        return {"MB": download / 1e6, "made, MB": kept / 1e6, "cpu s": sum(self._seconds[name] for name in names)}


def bytes_of(overlay: Overlay | None, path: Path) -> int:
    if overlay is None:
        return 0
    overlay.save(path)
    return path.stat().st_size


def judging(data: Dataset) -> tuple[list[Sample], list[Sample]]:
    """The held-out images by which a site decides on an overlay, and those by which this benchmark judges all."""
    return data.val[::2], data.val[1::2] or data.val


def figures(student: Detector, samples: Sequence[Sample], fleet: Fleet) -> Json:
    found = evaluate(student, samples, fleet.student.labels)
    return {"mAP50-95": 100 * found.map50_95, "mAP50": 100 * found.map50}


def everybody_of(fleet: Fleet, clusters: Mapping[str, int], number: int) -> list[Sample]:
    return [s for name, data in fleet.cameras.items() if clusters[name] == number for s in data.train]


def clusters_of(cameras: Mapping[str, Dataset]) -> dict[str, int]:
    """The number of each camera's cluster, by what its pictures are like (Ward's method on standardized styles)."""
    styles = np.array([np.hstack(list(dict(measure_style(data.train)).values())) for data in cameras.values()])
    spread = styles.std(0)
    alike = (styles - styles.mean(0)) / np.where(spread > 0, spread, 1)
    numbers = fcluster(linkage(alike, "ward"), CLUSTERS, "maxclust")
    return {name: int(number) for name, number in zip(cameras, numbers, strict=True)}


def shown(rows: list[Json]) -> list[str]:
    """The tables that a picture shows: the means over cameras."""
    names = dict.fromkeys(row["table"] for row in rows if row["table"].startswith(TABLE))
    return [name for name in names if "," not in name]


def targets_of(rows: list[Json]) -> list[Json]:
    """Of each fleet: what the narrower forms gain over one student for all that has learned as long."""
    targets = []
    for table in shown(rows):
        points = {row["form"]: row["mAP50-95"]["mean"] for row in rows if row["table"] == table}
        for form, base in (
            ("one for a camera", "one for all, longer"),
            ("one for a cluster", "one for all, longer"),
            ("fleet plus overlay", "one for all"),
        ):
            name = f"{table}: {form} minus {base}, points of mAP50-95"
            targets.append(target(name, points[form] - points[base], ">", 0))
    return targets
