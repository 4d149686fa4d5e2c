"""Labels with faults, a part of `bench/sites.py`: what an audit finds of them, and what it saves.

One in ten labels of a site, or three in ten, gets a fault: another class, no label at all, a box moved by a third to
two thirds of its sides, a label where nothing is; each kind alone, and all kinds together. What an audit finds of them,
by the deployed student, the tutor, and both. A set has faults of its own that nobody knows, so precision is also given
without what an audit finds in the set as it is.

Built-in: "scenes:presumed" with the starter release, which has learned other images of it, and "scenes:site-1", which
is strange to it and has one class more. On the first, the student also learns from labels of which three in ten have a
fault of any kind, from what the audit of both makes of them, and from the right ones.
Real, where there are any: six traffic cameras and coco128's held-out images (which COCO's models have not learned) with
COCO's YOLOv8n as student and YOLOv8s as tutor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from environment import QUICK, REAL
from label_faults import FAULTS, FaultKind, scored, with_faults
from numpy.typing import NDArray
from report import Json, cached, target

from cloud_server import starter
from diredi.data.dataset import Dataset, load
from diredi.data.sources import resolve
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.predictor import Detections, Predictor
from diredi.distillation.distil import distil
from diredi.evaluation.detection import evaluate
from diredi.evaluation.label_audit import Look, judge, known_classes, look
from diredi.evaluation.label_findings import LabelAudit

SHARES = (0.1, 0.3)
COLUMNS = ("recall", "precision", "precision, new")
MODELS = ("student", "tutor", "both")
KINDS: dict[str, Sequence[FaultKind]] = {kind: (kind,) for kind in FAULTS} | {"all kinds": FAULTS}
IMAGES = (24, 12) if QUICK else (100, 50)
REAL_SIZE = 192 if QUICK else 416
STEPS = 4 if QUICK else 100
TRAINING: Json = {"steps": STEPS, "precision": "bf16", "batch": 8, "learning_rate": 1e-3}
OTHER_IMAGES = 1000
"""Seeds of built-in images that the starter release has not learned."""
LEARNED = "presumed: the student after learning"


@dataclass(frozen=True, eq=False)
class Scenario:
    """A site whose labels are taken to be right, and models that have not learned from them."""

    name: str
    folder: Path
    data: Dataset
    """Its `train` is audited."""
    student: Detector
    tutor: Detector

    def audit(self, models: str, data: Dataset) -> LabelAudit:
        """What some of MODELS find in labels of these images."""
        looks, known = self._looks(models)
        return judge(data, ("train",), looks, known)

    @cache  # noqa: B019 - a scenario lives as long as its process
    def _looks(self, models: str) -> tuple[list[Look], NDArray[np.bool_]]:
        """What they see in the images, and which of them knows which class."""
        asked = ("student", "tutor") if models == "both" else (models,)
        known = known_classes([self._predictor(who) for who in asked], self.data.names)
        answers = zip(*(self._seen(who) for who in asked), strict=True)
        return [Look.of(one[0][0], [found for _, found in one], known) for one in answers], known

    def _predictor(self, who: str) -> Predictor:
        return self.student if who == "student" else self.tutor

    def _seen(self, who: str) -> list[tuple[tuple[int, int], Detections]]:
        """Size of each image, and what one of the models sees in it, from the cache if it is there."""

        def made() -> Json:
            predictor = self._predictor(who)
            looks = look([predictor], self.data, ("train",), known_classes([predictor], self.data.names))
            return {"seen": [(one.size, *(f.tolist() for f in vars(one.found).values())) for one in looks]}

        images = [str(sample.image) for sample in self.data.train]
        seen = cached(self.folder / f"{who}.json", {"images": images, "size": self.tutor.spec.image_size}, made)["seen"]
        return [((width, height), Detections.of(*found)) for (width, height), *found in seen]


def built_in(site: str, seed: int, work: Path) -> Scenario:
    """Built-in cameras, seen by the models of the starter release, which has learned other images of "presumed"."""
    folder = work / f"{site}-{seed}"
    models = starter.unpack(folder / "models")
    data = load(resolve(f"scenes:{site}", work / "data", OTHER_IMAGES + seed, *IMAGES))
    return Scenario(site, folder, data, registry.load(models.student), registry.load(models.tutor))


def real(work: Path) -> list[Scenario]:
    """Real sets, where there are any; their images and their labels are the same for every seed."""
    sets = {"traffic_cams": ("train", {"bike": "motorcycle"}), "coco128": ("val", {})}
    found = []
    for name, (split, rename) in sets.items():
        path = REAL / "detection" / name / "data.yaml"
        if not path.is_file():
            continue
        whole = load(path).renamed(rename)
        data = replace(whole, train=whole.train if split == "train" else whole.val, val=[])
        if QUICK:
            data = data.sample(8)
        student, tutor = (registry.load(REAL / "weights" / f"yolov8{one}.pt", image_size=REAL_SIZE) for one in "ns")
        found.append(Scenario(name, work / name, data, student, tutor))
    return found


def tables(seed: int, folder: Path) -> dict[str, Json]:
    """A table for each scenario and each of MODELS, and one of what is learned."""
    scenarios = [built_in("presumed", seed, folder), built_in("site-1", seed, folder), *real(folder)]
    found = {f"{one.name}: {models}": found_by(one, models, seed) for one in scenarios for models in MODELS}
    return {**found, LEARNED: learned(scenarios[0], seed, folder)}


def found_by(scenario: Scenario, models: str, seed: int) -> Json:
    """What an audit finds of faults, a row for each kind and share."""
    before = scenario.audit(models, scenario.data)
    rows = {}
    for name, kinds in KINDS.items():
        for share in SHARES:
            data, faults = with_faults(scenario.data, kinds, share, seed)
            audit = scenario.audit(models, data)
            rows[f"{name}, {100 * share:.0f} %"] = scored(audit, before, faults, kinds, data.names)
    return rows


def learned(scenario: Scenario, seed: int, folder: Path) -> Json:
    """What the student of a site learns from labels with faults, with an audit and without."""
    faulty, _ = with_faults(scenario.data, FAULTS, SHARES[-1], seed)
    audited = scenario.audit("both", faulty).corrected(faulty)
    sets = {"right labels": scenario.data, "faulty labels": faulty, "faulty labels, audited": audited}
    rows = {"before": figures(scenario.student, scenario.data)}
    for name, data in sets.items():
        boxes = [sample.boxes.tolist() for sample in data.train]
        made_from = {"training": TRAINING, "seed": seed, "boxes": boxes}
        file = folder / f"presumed-{seed}" / "learned" / f"{name}.json"
        rows[name] = cached(file, made_from, partial(student_of, scenario, data, seed))
    return rows


def student_of(scenario: Scenario, data: Dataset, seed: int) -> Json:
    return figures(distil(scenario.student, data, recipe={**TRAINING, "seed": seed}), scenario.data)


def figures(student: Detector, data: Dataset) -> Json:
    """Percent, on the held-out images, whose labels are right."""
    found = evaluate(student, data)
    return {"mAP50": 100 * found.map50, "mAP50-95": 100 * found.map50_95}


def targets_of(rows: list[Json]) -> list[Json]:
    """What both models find of each kind of fault, and what the audit saves of what the faults cost."""
    targets = []
    for table in dict.fromkeys(row["table"] for row in rows if row["table"].endswith(": both")):
        for row in rows:
            if row["table"] == table and row["form"].split(", ")[0] in ("wrong class", "missing", "misplaced"):
                name = f"{table}: {row['form']}"
                targets.append(target(f"{name}: recall", row["recall"]["mean"], ">", 50))
                targets.append(target(f"{name}: precision", row["precision"]["mean"], ">", 75))
    points = {row["form"]: row["mAP50"]["mean"] for row in rows if row["table"] == LEARNED}
    lost, left = (points["right labels"] - points[form] for form in ("faulty labels", "faulty labels, audited"))
    return [
        *targets,
        target(f"{LEARNED}: points that the audit wins back, half of the loss", lost - left, ">", lost / 2),
    ]


def shown(rows: list[Json]) -> list[str]:
    """The tables that a picture shows."""
    return [table for table in dict.fromkeys(row["table"] for row in rows) if table.endswith(": both")]
