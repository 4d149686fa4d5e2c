"""Peers that are detectors, a part of `bench/sites.py`: what they gain from each other's boxes on public images.

Each peer has a few labelled images of its own place; all have the same public images, whose labels nobody reads. After
its own labels a peer learns for ROUNDS rounds. Every form takes as many steps, and starts each seed from the same
detectors, which know the classes of all places by name:

    start          before anything is learned
    alone          own labels
    own EMA        own labels, and what a running mean of the own weights finds on the public images: what a peer needs
                   nobody for
    boxes          own labels, and what all find on the public images, fused (`peer_node.detection_learner`)
    FedAvg         own labels; after each round all go on from the mean of their weights
    scores: ...    own labels, and on the public images the mean of the neighbours' scores, by each dissimilarity

A peer is judged on held-out images of its own place ("own") and of every place ("everywhere": the mean). "gained" is
what "own" gains over the own EMA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml
from environment import QUICK, REAL
from report import Json, cached, target

from cloud_server import starter
from diredi.data.dataset import Dataset, load
from diredi.decentralized.averaging import average
from diredi.decentralized.detectors import EnsembleTeacher
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.dissimilarity import MEASURES
from diredi.distillation.distil import distil
from diredi.evaluation.detection import evaluate
from diredi.store.weights import WeightMap
from diredi_scenes import SITES
from peer_node.detection_learner import DetectionLearner, create_learner
from peer_node.learner import LearnerContext

ROUNDS = 1 if QUICK else 3
SCORES = tuple(MEASURES)[:1] if QUICK else tuple(MEASURES)
COLUMNS = ("own", "everywhere")
TABLE = "peers: "
FORMS = ("start", "alone", "own EMA", "boxes", "FedAvg", *(f"scores: {measure}" for measure in SCORES))
PLACES = ("site-1", "site-2", "site-3", "site-4")
SIZES = (64, 96) if QUICK else (128, 224)
"""Pixels of built-in and real images."""
BRISK: Json = {"batch": 8, "precision": "bf16"}
GENTLE: Json = {**BRISK, "learning_rate": 2e-4, "batch_norm": "frozen", "train_only": ["neck", "head"]}
"""For what COCO has taught: a few dozen images must not undo it."""


@dataclass(frozen=True)
class Family:
    """Peers of one kind: their places, the public images, and the detector that all start from."""

    name: str
    own: tuple[str, ...]
    """A data set for each peer."""
    public: str
    start: Path
    image_size: int
    training: Json
    """Of one round."""
    images: tuple[int, int, int] = (4, 2, 6) if QUICK else (60, 40, 200)
    """Of a built-in place, for learning and held out, and public ones."""


def families(seed: int, folder: Path) -> list[Family]:
    """Built-in sites, taught before and from nothing; and six traffic cameras, where there are any."""
    own, public = tuple(f"scenes:{place}" for place in PLACES), "scenes:presumed"
    taught = registry.load(starter.unpack(folder / "models").student, image_size=SIZES[0])
    names = list(dict.fromkeys(name for place in PLACES for name in SITES[place].names))
    labels = taught.labels.expand(names)
    nothing = registry.create("yolo11-w0.125", SIZES[0], labels, seed, device="cpu")
    steps = (2, 2, 2) if QUICK else (60, 200, 20)
    found = [
        Family(
            name, own, public, saved(start, folder / f"seed-{seed}" / name), SIZES[0], {**BRISK, "steps": few, **more}
        )
        for name, start, few, more in (
            ("taught before", taught.expand_classes(labels), steps[0], {"learning_rate": 1e-3}),
            ("from nothing", nothing, steps[1], {"learning_rate": 3e-3}),
        )
    ]
    if (REAL / "detection" / "traffic_cams" / "data.yaml").is_file():
        own = tuple(cameras(load(REAL / "detection" / "traffic_cams" / "data.yaml"), folder / "cameras"))
        coco = registry.load(REAL / "weights" / "yolov8n.pt", image_size=SIZES[1])
        start, public = saved(coco, folder / "coco"), str(REAL / "detection" / "coco128" / "images" / "train")
        found.append(Family("traffic cameras", own, public, start, SIZES[1], {**GENTLE, "steps": steps[2]}))
    return found


def saved(start: Detector, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    start.save(folder / "start.safetensors")
    return folder / "start.safetensors"


def cameras(data: Dataset, folder: Path) -> list[str]:
    """A data.yaml for each camera; what the set calls a bike is COCO's motorcycle."""
    paths = []
    for name, camera in data.renamed({"bike": "motorcycle"}).by_camera().items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for split in ("train", "val"):
            (place / f"{split}.txt").write_text("".join(f"{one.image.resolve()}\n" for one in camera.split(split)))
        described = {"path": str(place), "train": "train.txt", "val": "val.txt", "names": list(camera.names)}
        (place / "data.yaml").write_text(yaml.safe_dump(described))
        paths.append(str(place / "data.yaml"))
    return paths


class Peers:
    """All peers of a family, for one seed. A form is what they do in each round."""

    def __init__(self, family: Family, seed: int, folder: Path) -> None:
        self.family, self.seed, self.folder = family, seed, folder
        self._count = len(family.own)

    def row(self, form: str) -> Json:
        """Means over the peers, in percent."""
        found, control = self._figures(form), self._figures("own EMA")
        gained = np.array(found["own"]) - np.array(control["own"])
        means = {column: float(np.mean(values)) for column, values in found.items()}
        return {**means, "gained": float(gained.mean()), "peers that gained": float((gained > 0).sum())}

    def _figures(self, form: str) -> Json:
        """Percent, a figure for each peer."""
        made_from = {"form": form, "rounds": ROUNDS, "seed": self.seed, **asdict(self.family)}
        file = self.folder / f"seed-{self.seed}" / self.family.name / f"{form.replace(': ', '-')}.json"
        return cached(file, made_from, lambda: self._measured(form))

    def _measured(self, form: str) -> Json:
        peers = self._start()
        learned = self._learned(form, peers)
        found = [[evaluate(one, peer.held_out, one.labels) for peer in peers] for one in learned]
        return {
            "own": [100 * row[me].map50 for me, row in enumerate(found)],
            "own 50-95": [100 * row[me].map50_95 for me, row in enumerate(found)],
            "everywhere": [100 * float(np.mean([one.map50 for one in row])) for row in found],
        }

    def _start(self) -> list[DetectionLearner]:
        data = {
            "own": self.family.own,
            "public": self.family.public,
            "scenes": self.family.images[:2],
            "public_scenes": self.family.images[2],
            "folder": str(self.folder / "data"),
        }
        options = {
            "models": [str(self.family.start)],
            "image_sizes": [self.family.image_size],
            "recipe": self.family.training,
        }
        contexts = [LearnerContext(me, self._count, ROUNDS, self.seed, data, options) for me in range(self._count)]
        return [create_learner(context) for context in contexts]

    def _learned(self, form: str, peers: list[DetectionLearner]) -> list[Detector]:
        match form:
            case "start":
                pass
            case "alone":
                exchange_boxes(peers, lambda _: [])
            case "own EMA":
                exchange_boxes(peers, lambda me: [me])
            case "boxes":
                exchange_boxes(peers, lambda me: [other for other in range(self._count) if other != me])
            case "FedAvg":
                return self._by_weights(peers)
            case _:
                return self._by_scores(peers, form.removeprefix("scores: "))
        return [peer.detector for peer in peers]

    def _by_weights(self, peers: list[DetectionLearner]) -> list[Detector]:
        learned, images = fitted(peers), [len(peer.own.samples) for peer in peers]
        for number in range(1, ROUNDS + 1):
            learned = [
                self._distilled(one, [peer.own], me, number)
                for me, (one, peer) in enumerate(zip(learned, peers, strict=True))
            ]
            mean = WeightMap(average([one.weights() for one in learned], images))
            learned = [registry.from_weights(one.spec, mean, one.device) for one in learned]
        return learned

    def _by_scores(self, peers: list[DetectionLearner], measure: str) -> list[Detector]:
        learned = fitted(peers)
        taught: Json = {"losses": {measure: 1.0, "boxes": 1.0}, "teaches": "unlabelled"}
        for number in range(1, ROUNDS + 1):
            teachers = [EnsembleTeacher([*learned[:me], *learned[me + 1 :]]) for me in range(self._count)]
            learned = [
                self._distilled(
                    one,
                    [peers[me].own, Pool(peers[me].draw_public(number), frozenset())],
                    me,
                    number,
                    teachers[me],
                    taught,
                )
                for me, one in enumerate(learned)
            ]
        return learned

    def _distilled(
        self,
        start: Detector,
        pools: list[Pool],
        me: int,
        number: int,
        teacher: EnsembleTeacher | None = None,
        more: Json | None = None,
    ) -> Detector:
        seed = self.seed * self._count + me + 1000 * (number + 1)
        return distil(start, pools, teacher=teacher, recipe={**self.family.training, **(more or {}), "seed": seed})


def exchange_boxes(peers: list[DetectionLearner], heard: Callable[[int], list[int]]) -> None:
    """All rounds, as over the wire; `heard` says whose boxes a peer learns from."""
    for number in range(1, ROUNDS + 1):
        for peer in peers:
            peer.fit(number)
        said = [peer.compute_update(number) for peer in peers]
        for me, peer in enumerate(peers):
            peer.learn(number, {f"peer-{other}": said[other] for other in heard(me)})


def fitted(peers: list[DetectionLearner]) -> list[Detector]:
    """After own labels alone, as every form begins."""
    for peer in peers:
        peer.fit(1)
    return [peer.detector for peer in peers]


def tables(seed: int, folder: Path) -> dict[str, Json]:
    """A table for each family, a row for each form."""
    found = {}
    for family in families(seed, folder):
        peers = Peers(family, seed, folder)
        found[f"{TABLE}{family.name}"] = {form: peers.row(form) for form in FORMS}
    return found


def shown(rows: list[Json]) -> list[str]:
    """The tables that a picture shows."""
    return list(dict.fromkeys(row["table"] for row in rows if row["table"].startswith(TABLE)))


def targets_of(rows: list[Json]) -> list[Json]:
    """Boxes gain over the own EMA in every seed, in each family."""
    boxes = [row for row in rows if row["table"].startswith(TABLE) and row["form"] == "boxes"]
    return [
        target(f"{row['table']}: boxes gain over own EMA, least of the seeds", row["gained"]["low"], ">", 0)
        for row in boxes
    ]
