"""What the cloud may teach the next student on, without a private image: `make bench-sources`.

The site has new light and a forklift, which the manufacturer's detectors have never seen. Each source of images
(`diredi/knowledge/image_sources`) re-distils the student from the updated tutor for as many steps, starting from the
deployed student and from that one with the site's student gap. Two public pools, both without labels: one is another
depot by day, with forklifts (site-3, other images than that site's own); one is streets by night, without any (site-2).
Where neither a pool nor presumed images show the forklift, the case is entirely new to the cloud: those are the rows
without "forklifts". In "styled" and "pasted" the site has published its style.

mAP50 in percent on held-out images: the manufacturer's, the site's, of the classes that were known and of the new one.
What is finished is kept in `runs/sources`, extraction where bench-update keeps it. `QUICK=1` runs through all of it
with tiny models that learn next to nothing, into `bench/results/quick`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from environment import QUICK, Environment, describe_plan, run_job
from harness import folder_of, run_benchmark
from numpy.typing import NDArray
from report import COMMIT, Json, cached, draw, target

from diredi.data.dataset import Sample, load
from diredi.data.sources import resolve
from diredi.data.style import SiteStyle, measure_style
from diredi.detectors.base import Detector
from diredi.distillation.trainer import train
from diredi.knowledge.gap import Gap
from diredi.knowledge.gap_application import with_gap
from diredi.knowledge.image_sources import Stock, images_of
from diredi.knowledge.jobs import extract
from diredi.knowledge.recipe import ImageSource
from diredi.knowledge.redistil import halfway
from diredi.knowledge.reverse import seeded

Numbers = NDArray[np.float64]
SITE = "scenes:site-1"
WITH, WITHOUT = "with the student gap", "without the student gap"
BEFORE, TUTOR, GAP, MEAN = "the deployed student", "the updated tutor", "the gap alone", ", half-way back"
DAY, NIGHT = "scenes:site-3", "scenes:site-2"
OTHER_IMAGES = 1000
"""Added to the seed: a pool never holds images of a site."""
POOL_IMAGES = 48 if QUICK else 240


@dataclass(frozen=True)
class Distiller:
    """What to teach on, and how."""

    mix: dict[ImageSource, float]
    pool: str = ""
    """Where public images come from."""
    how: Json = field(default_factory=dict)
    """Options of `redistil`."""


STILL: Json = {"batch_norm": "frozen"}
STRONG: Json = {"augment": {"brightness": 0.6, "contrast": 0.5, "saturation": 0.7, "noise": 0.1}}
"""Colours and noise so far apart that the site's may be among them, without a word from the site."""
TEACHINGS: dict[str, Distiller] = {
    "presumed": Distiller({"presumed": 1}),
    "presumed, strong colours": Distiller({"presumed": 1}, how=STRONG),
    "styled": Distiller({"styled": 1}),
    "presumed and styled": Distiller({"presumed": 1, "styled": 1}),
    "pool": Distiller({"pool": 1}, NIGHT),
    "pool, forklifts": Distiller({"pool": 1}, DAY),
    "chosen, forklifts": Distiller({"chosen": 1}, DAY),
    "presumed and chosen, forklifts": Distiller({"presumed": 1, "chosen": 1}, DAY),
    "pasted, forklifts": Distiller({"pasted": 1}, DAY),
    "presumed, styled, pasted, forklifts": Distiller({"presumed": 1, "styled": 1, "pasted": 1}, DAY),
}
HELD: dict[str, Distiller] = {
    **{name: TEACHINGS[name] for name in ("presumed", "presumed, strong colours", "styled", "presumed and styled")},
    **{name: TEACHINGS[name] for name in ("pool, forklifts", "presumed and chosen, forklifts")},
    "presumed, statistics still": Distiller({"presumed": 1}, how=STILL),
}
"""What is tried on a student that has the site's gap."""


class Trial:
    """One seed: the gaps of the site, and the updated tutor."""

    def __init__(self, seed: int) -> None:
        self.environment = Environment(seed)
        self.site = self.environment.site(SITE)
        self.folder = folder_of("sources") / f"seed-{seed}"
        self.presumed = self.environment.presumed.with_labels(self.site.labels)

    @cached_property
    def taken(self) -> Json:
        """The site's part of the cycle, which is the one of bench-update."""
        ground = folder_of("update") / "site-1, new light and class"
        folder = ground / f"seed-{self.environment.seed}" / "ours" / "extract"
        return run_job(extract.main, folder, self.environment.extract_spec(self.site, self.environment.cycle()))

    def gap(self, kind: str) -> Gap:
        return Gap.from_bytes(Path(self.taken[f"{kind}_gap"]["path"]).read_bytes())

    @cached_property
    def tutor(self) -> Detector:
        return with_gap(self.environment.tutor, self.gap("tutor"), 1.0)

    @cached_property
    def style(self) -> SiteStyle:
        return measure_style(self.site.data.train)

    def stock(self, teaching: Distiller) -> Stock:
        public: list[Sample] = []
        seed, place = self.environment.seed, self.environment.plan.folder / "data"
        if teaching.pool:
            public = load(resolve(teaching.pool, place, seed + OTHER_IMAGES, POOL_IMAGES, 1), ["train"]).train
        ours, made = self.presumed.train, self.folder / "images"
        return Stock(self.tutor, self.environment.student, ours, public, [self.style], False, made, seed)

    @cached_property
    def with_the_gap(self) -> Detector:
        return with_gap(self.environment.student, self.gap("student"), 1.0)

    def taught(self, start: Detector, teaching: Distiller) -> Detector:
        """`start` is not changed."""
        student = start.expand_classes(self.site.labels)
        pools = list(images_of(self.stock(teaching), teaching.mix).values())
        recipe = self.environment.recipe(redistil={**self.environment.plan.cycle["redistil"], **teaching.how}).redistil
        train(student, pools, seeded(recipe, self.environment.seed), teacher=self.tutor)
        return student

    def columns(self, detector: Detector) -> dict[str, float]:
        site, [new] = self.site.metrics(detector), self.site.new
        old = [metrics.ap50 for name, metrics in site.per_class.items() if name != new]
        presumed = self.environment.presumed_metrics(detector, self.site.labels).map50
        return {
            name: 100 * value
            for name, value in {
                "presumed": presumed,
                "site": site.map50,
                "site, known": float(np.mean(old)),
                "site, new": site.per_class[new].ap50,
            }.items()
        }


def measure(seed: int, folder: Path) -> Json:
    """Every training a cell on disk."""
    trial, made, commits = Trial(seed), dict[str, Json](), set[str]()
    known: dict[str, Callable[[], dict[str, Detector]]] = {
        BEFORE: lambda: {BEFORE: trial.environment.student},
        TUTOR: lambda: {TUTOR: trial.tutor},
    }
    cells = {WITHOUT: known | {name: partial(_from_old, trial, name) for name in TEACHINGS}}
    cells[WITH] = {GAP: lambda: {GAP: trial.with_the_gap}} | {name: partial(_from_gap, trial, name) for name in HELD}
    for table, makers in cells.items():
        for name, make in makers.items():
            how = asdict((HELD if table == WITH else TEACHINGS)[name]) if name in (TEACHINGS | HELD) else None
            path = trial.folder / f"{re.sub('[^a-z0-9]+', '-', f'{table} {name}')}.json"
            made_from = {
                "table": table,
                "row": name,
                "seed": seed,
                "plan": describe_plan(trial.environment.plan),
                "how": how,
            }
            cell = cached(path, made_from, partial(_cell, trial, make))
            commits.add(cell["commit"])
            made[table] = made.get(table, {}) | cell["rows"]
    return {"commits": sorted(commits), "tables": made}


def _from_old(trial: Trial, name: str) -> dict[str, Detector]:
    return {name: trial.taught(trial.environment.student, TEACHINGS[name])}


def _from_gap(trial: Trial, name: str) -> dict[str, Detector]:
    student = trial.taught(trial.with_the_gap, HELD[name])
    return {name: student, f"{name}{MEAN}": halfway(trial.with_the_gap, student)}


def _cell(trial: Trial, make: Callable[[], dict[str, Detector]]) -> Json:
    return {"commit": COMMIT, "rows": {name: trial.columns(made) for name, made in make().items()}}


def targets_of(rows: list[Json]) -> list[Json]:
    """Judged from the rows alone; points are of mAP50 in percent, means over the seeds."""

    def seeds(table: str, row: str, column: str) -> Numbers:
        return np.array(next(r[column]["seeds"] for r in rows if (r["table"], r["form"]) == (table, row)))

    def gain(table: str, row: str, other: str, column: str) -> Numbers:
        return seeds(table, row, column) - seeds(table, other, column)

    forgotten = seeds(WITHOUT, BEFORE, "presumed") - seeds(WITH, GAP, "presumed")
    styled = gain(WITHOUT, "styled", "presumed", "site, known").mean()
    shown_new = gain(WITHOUT, "pool, forklifts", "pool", "site, new").mean()
    picked = gain(WITHOUT, "chosen, forklifts", "pool, forklifts", "site, new").mean()
    lead = seeds(WITH, GAP, "site") - np.max([seeds(WITHOUT, name, "site") for name in TEACHINGS], 0)
    return [
        target("the gap alone: forgotten on presumed images, worst seed, points", forgotten.max(), "<", 0.5),
        target("the gap alone over the best source without it, site, mean, points", lead.mean(), ">", 0),
        target("without the gap: styled over presumed images, site, known classes, mean, points", styled, ">", 0),
        target("without the gap: a pool with forklifts over one without, new class, mean, points", shown_new, ">", 0),
        target("without the gap: chosen over any images of the pool, new class, mean, points", picked, ">", 0),
    ]


def picture(rows: list[Json], title: str, path: Path) -> None:
    draw(rows, {WITH: WITH, WITHOUT: WITHOUT}, ("presumed", "site, known", "site, new"), title, path)


if __name__ == "__main__":
    run_benchmark("sources", __doc__, measure, targets_of, picture)
