"""Sites without a label, a part of `bench/sites.py`: fixed cameras whose student learns from what an oracle finds.

A large oracle looks at each image several times (`diredi.knowledge.jobs.oracle`), as it does for a cycle that was
started with `--labels oracle`; the student of each camera learns that, or the labels, in as many steps:

    student         before
    oracle          as shipped, one look at the size of the student: what a device cannot afford
    looks           what it says after all its looks, plain and mirrored
    taught          the student that has learned from its looks, without a label
    with labels     the same training with labels

"mAP50" is by labels, which this benchmark alone sees. "estimate" is mAP50 by what the oracle finds in the held-out
images, which is all that a site without labels has; "off" is how far it is from the truth.

Real cameras, where there are any: six traffic cameras, and a parking camera whose occupied bays are cars; YOLOv8n
learns, YOLOv8s and YOLO26m are the oracles. Built-in: nine cameras of the car park, with the starter release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from environment import QUICK, REAL
from report import Json, cached, target

from cloud_server import starter
from diredi.data.dataset import SPLITS, Dataset, Sample, load
from diredi.data.sources import resolve
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.predictor import Predictor
from diredi.distillation.distil import distil
from diredi.distillation.ensemble import TTAPredictor
from diredi.evaluation.detection import evaluate
from diredi.knowledge.jobs import oracle
from diredi.knowledge.jobs.specs import OracleSpec
from diredi.knowledge.recipe import CycleRecipe
from diredi.labels import LabelSpace

TABLE = "without labels: "
MEAN = "mean"
FORMS = ("student", "oracle", "looks", "taught", "with labels")
COLUMNS = FORMS
SIZE, IMAGES = (96, (54, 36)) if QUICK else (320, (450, 225))
BUILT_IN_SIZE = 64 if QUICK else 128
GENTLE: Json = {
    "steps": 2 if QUICK else 24,
    "batch": 8,
    "precision": "bf16",
    "learning_rate": 2e-4,
    "batch_norm": "frozen",
    "train_only": ["neck", "head"],
}
"""For what COCO has taught: a few dozen images must not undo it."""
BRISK: Json = {"steps": 2 if QUICK else 150, "batch": 8, "precision": "bf16", "learning_rate": 1e-3}


@dataclass(frozen=True)
class Family:
    """Cameras, a student, and the file of an oracle."""

    name: str
    cameras: Mapping[str, Dataset]
    """In the label space of the student."""
    student: Detector
    oracle: Path
    training: Json


def families(seed: int, folder: Path) -> list[Family]:
    """Built-in cameras and, where there are any, real ones with each oracle."""
    models = starter.unpack(folder / "models")
    student = registry.load(models.student, image_size=BUILT_IN_SIZE)
    park = load(resolve("scenes:car-park", folder / "data", seed, *IMAGES)).with_labels(student.labels)
    found = [Family("built-in car park", few(park.by_camera()), student, models.tutor, BRISK)]
    if (REAL / "detection" / "traffic_cams" / "data.yaml").is_file():
        student = registry.load(REAL / "weights" / "yolov8n.pt", image_size=SIZE)
        cameras = real_cameras(student.labels)
        oracles = {"YOLOv8s": "yolov8s.pt"} if QUICK else {"YOLOv8s": "yolov8s.pt", "YOLO26m": "yolo26m.pt"}
        found += [
            Family(f"real cameras, {name}", cameras, student, REAL / "weights" / file, GENTLE)
            for name, file in oracles.items()
        ]
    return found


def real_cameras(labels: LabelSpace) -> dict[str, Dataset]:
    """Each camera by itself; what one set calls a bike is COCO's motorcycle, and an occupied bay has a car."""
    roads = load(REAL / "detection" / "traffic_cams" / "data.yaml").renamed({"bike": "motorcycle"})
    bays = load(REAL / "detection" / "parking_cam" / "data.yaml")
    cameras = {**roads.by_camera(), "parking": occupied(bays)}
    return {name: one.with_labels(labels) for name, one in few(cameras).items()}


def few(cameras: dict[str, Dataset]) -> dict[str, Dataset]:
    """Where it has to be quick, some images of the first camera and the last."""
    ends = {name: cameras[name] for name in (min(cameras), max(cameras))} if QUICK else {}
    return {name: replace(one, train=one.train[:4], val=one.val[:2]) for name, one in ends.items()} or cameras


def occupied(bays: Dataset) -> Dataset:
    """The bays with a car in them."""
    taken = bays.names.index("occupied")

    def cars(sample: Sample) -> Sample:
        boxes = sample.boxes[sample.boxes[:, 0] == taken].copy()
        boxes[:, 0] = 0
        return replace(sample, boxes=boxes)

    train, val = ([cars(sample) for sample in bays.split(split)] for split in SPLITS)
    return replace(bays, names=("car",), train=train, val=val)


def tables(seed: int, folder: Path) -> dict[str, Json]:
    """A table for each family: a row for each camera, and their mean."""
    found = {}
    for family in families(seed, folder):
        rows = {}
        for camera, data in family.cameras.items():
            made_from = {
                "seed": seed,
                "training": family.training,
                "size": family.student.spec.image_size,
                "images": [len(data.train), len(data.val)],
            }
            place = folder / f"seed-{seed}" / family.name
            rows[camera] = cached(
                place / f"{camera}.json", made_from, partial(of_camera, family, data, seed, place / camera)
            )
        rows[MEAN] = {
            column: float(np.mean([row[column] for row in rows.values()])) for column in rows[next(iter(rows))]
        }
        found[f"{TABLE}{family.name}"] = rows
    return found


def of_camera(family: Family, data: Dataset, seed: int, folder: Path) -> Json:
    """mAP50 of every form, in percent, and what the estimate says of the student that was taught."""
    student, recipe = family.student, {**family.training, "seed": seed}
    cycle = CycleRecipe()
    spec = OracleSpec(
        detector=family.oracle,
        labels=student.labels,
        looks=cycle.oracle_looks,
        confidence=cycle.oracle_confidence,
        kept=folder / "answers.json",
    )
    seen = oracle.label(data, spec).with_labels(student.labels)
    large = registry.load(family.oracle)
    judged: dict[str, Predictor] = {
        "student": student,
        "oracle": registry.load(family.oracle, image_size=student.spec.image_size),
        "looks": TTAPredictor.of(large, oracle.looks_of(large, cycle.oracle_looks)),
        "taught": distil(student, seen, recipe=recipe, labels=student.labels),
        "with labels": distil(student, data, recipe=recipe, labels=student.labels),
    }
    found = {form: 100 * evaluate(judged[form], data.val, student.labels).map50 for form in FORMS}
    estimate = 100 * evaluate(judged["taught"], seen.val, student.labels).map50
    return {**found, "estimate": estimate, "off": abs(estimate - found["taught"])}


def shown(rows: list[Json]) -> list[str]:
    """The tables that a picture shows."""
    return list(dict.fromkeys(row["table"] for row in rows if row["table"].startswith(TABLE)))


def targets_of(rows: list[Json]) -> list[Json]:
    """Of each family: cameras above their oracle, points behind labels, and how far estimates are off."""
    targets = []
    for table in shown(rows):
        cameras = [row for row in rows if row["table"] == table and row["form"] != MEAN]
        points = {column: np.array([row[column]["mean"] for row in cameras]) for column in (*FORMS, "off")}
        above = int((points["taught"] > points["oracle"]).sum())
        behind = float((points["with labels"] - points["taught"]).mean())
        targets += [
            target(f"{table}: of {len(cameras)} cameras, those above their oracle", above, ">", len(cameras) - 2),
            target(f"{table}: points behind labels, mean", behind, "<", 2),
            target(f"{table}: points that the estimate is off, mean", float(points["off"].mean()), "<", 5),
        ]
    return targets
