"""Few labels, a part of `bench/sites.py`: what a few labelled images of a new class teach.

A site has labelled its new class on 10, 20 or 50 images and nothing else: its own student after the part of a cycle
that it does, without an oracle of its own and with known classes filled in by the tutor; the student fine-tuned on the
same labels; and what all labels of the site reach. Judged by all labels of the held-out images, which nobody else sees.

Built-in: "scenes:site-1" with the starter release, which has learned other images of "scenes:presumed".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from environment import QUICK
from report import Json, cached, target

from cloud_server import starter
from diredi.data.dataset import Dataset, Sample, load
from diredi.data.sources import resolve
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.evaluation.detection import evaluate
from diredi.knowledge.extraction import extract_gap
from diredi.knowledge.gap import apply
from diredi.knowledge.jobs import filling
from diredi.knowledge.jobs.specs import OracleSpec
from diredi.knowledge.recipe import CycleRecipe
from diredi.labels import LabelSpace

COUNTS = (10,) if QUICK else (10, 20, 50)
IMAGES = (24, 12) if QUICK else (100, 50)
TRAINING: Json = {"precision": "bf16", **({"steps": 4} if QUICK else {"epochs": 12})}
OTHER_IMAGES = 1000
"""Seeds of built-in images that the starter release has not learned."""
TABLE = "site-1: few labels"
COLUMNS = ("new class, AP50", "known classes, mAP50", "presumed, mAP50")
OURS = "DiReDi"
FILLED = "DiReDi, known classes filled in by the tutor"
TUNED = "fine-tuning"
ALL = "all labels"


@dataclass(frozen=True, eq=False)
class FewLabels:
    """A site, the models that it is given, and how they learn."""

    site: Dataset
    """With all labels; `val` is what all are measured on, and nobody learns from it."""
    presumed: Dataset
    """`train` is the coreset."""
    tutor: Path
    student: Path
    training: Json
    """Options of all trainings, the same for everybody."""
    seed: int

    @property
    def known(self) -> LabelSpace:
        return self._student().spec.labels

    @property
    def labels(self) -> LabelSpace:
        return self.known.expand(self.site.names)

    @property
    def new(self) -> tuple[str, ...]:
        return self.labels.new_since(self.known)

    def rows(self, counts: Sequence[int], folder: Path) -> dict[str, Json]:
        """A row for each method and number of images; the numbers are percent."""
        rows = {"release 1": self._figures(self._student())}
        methods = {OURS: partial(self.ours, fill=False), FILLED: partial(self.ours, fill=True), TUNED: self.tuned}
        for count in counts:
            few, rest = self._labelled(count)
            for name, method in methods.items():
                made_from = {"training": self.training, "seed": self.seed, "images": [str(s.image) for s in few.train]}
                file = folder / f"few-{count}" / f"{name}.json"
                row = cached(file, made_from, lambda m=method, f=few, r=rest, p=file: self._figures(m(f, r, p)))  # type: ignore[misc]
                rows[f"{count} images: {name}"] = row
        made_from = {"training": self.training, "seed": self.seed, "images": len(self.site.train)}
        file = folder / f"{ALL}.json"
        rows[ALL] = cached(file, made_from, lambda: self._figures(self.ours(self.site, [], file, fill=False)))
        return rows

    def ours(self, few: Dataset, rest: Sequence[Sample], file: Path, *, fill: bool) -> Detector:
        """The site's own student after its part of a cycle."""
        filled = None
        if fill:
            kept = file.with_suffix(".oracle.json")
            oracle = OracleSpec(detector=self.tutor, labels=self.known, looks=(1.0, 1.5), confidence=0.25, kept=kept)
            filled, _ = filling.fill_in(few, rest, oracle, who="the cloud's tutor")
        options = {"form": "weights", "lam": 1.0, "tutor": self.training, "student": self.training, "seed": self.seed}
        student = self._student()
        gaps = extract_gap(
            registry.load(self.tutor), student, few,
            coreset=self.presumed, recipe=CycleRecipe.of(options), labels=self.labels, filled_in=filled,
        )  # fmt: skip
        assert gaps.student is not None
        after = student.expand_classes(self.labels)
        after.load_weights(apply(after.weights(), gaps.student.weights))
        return after

    def tuned(self, few: Dataset, rest: Sequence[Sample], file: Path) -> Detector:
        """The student learns the labelled images as they are; what has no label is background."""
        student = self._student().expand_classes(self.labels)
        train(student, [Pool(few.with_labels(self.labels).train)], TrainRecipe.of({**self.training, "losses": {}}))
        return student

    def _labelled(self, count: int) -> tuple[Dataset, list[Sample]]:
        """So many images with labels of the new class alone, and the others, which nobody has labelled."""
        ids = [self.site.names.index(name) for name in self.new]

        def only_new(sample: Sample) -> Sample:
            return replace(sample, boxes=sample.boxes[np.isin(sample.boxes[:, 0], ids)])

        showing = [sample for sample in self.site.train if len(only_new(sample).boxes)]
        order = np.random.default_rng(self.seed).permutation(len(showing))[:count]
        chosen = {showing[index].image for index in order}
        labelled = [only_new(sample) for sample in self.site.train if sample.image in chosen]
        rest = [replace(s, boxes=s.boxes[:0]) for s in self.site.train if s.image not in chosen]
        held_out = [one for sample in self.site.val if len((one := only_new(sample)).boxes)]
        return replace(self.site, train=labelled, val=held_out), rest

    def _student(self) -> Detector:
        return registry.load(self.student)

    def _figures(self, student: Detector) -> Json:
        """AP50 of the new class, and of the others at the site and on presumed images."""
        labels = self.labels
        at_site = evaluate(student, self.site.with_labels(labels).val, labels).per_class
        elsewhere = evaluate(student, self.presumed.with_labels(labels).val, labels)
        known = [found.ap50 for name, found in at_site.items() if name not in self.new and found.boxes]
        new = [at_site[name].ap50 for name in self.new if name in at_site]
        percent = (100 * float(value) for value in (np.mean(new), np.mean(known), elsewhere.map50))
        return dict(zip(COLUMNS, percent, strict=True))


def tables(seed: int, folder: Path) -> dict[str, Json]:
    """A row for each method and number of images."""
    models = starter.unpack(folder / "models")
    site, presumed = (
        load(resolve(f"scenes:{name}", folder / "data", OTHER_IMAGES + seed, *IMAGES))
        for name in ("site-1", "presumed")
    )
    scenario = FewLabels(site, presumed, models.tutor, models.student, TRAINING, seed)
    return {TABLE: scenario.rows(COUNTS, folder / str(seed))}


def targets_of(rows: list[Json]) -> list[Json]:
    """Ten images beside all labels and beside fine-tuning, and what is known."""
    found = {row["form"]: row for row in rows if row["table"] == TABLE}
    new, known = COLUMNS[:2]
    ours, tuned, before, everything = (
        found[form] for form in (f"10 images: {OURS}", f"10 images: {TUNED}", "release 1", ALL)
    )
    return [
        target(f"{TABLE}: {new}, 10 images, 60 % of all labels", ours[new]["mean"], ">", 0.6 * everything[new]["mean"]),
        target(f"{TABLE}: {new}, 10 images above fine-tuning", ours[new]["mean"] - tuned[new]["mean"], ">", 0),
        target(f"{TABLE}: {known}, 10 images, change", ours[known]["mean"] - before[known]["mean"], ">", 0),
    ]


def shown(rows: list[Json]) -> list[str]:
    """The tables that a picture shows."""
    return [TABLE]
