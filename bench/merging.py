"""Several sites, one tutor: `python bench/merging.py [--seeds 0 1 2]`, the tables of docs/decisions/0012-merging.md.

Two sites each have a class that the manufacturer does not know (a forklift, an excavator). Each extracts a gap for the
tutor and one for the student; each method merges them, and the result is measured on the held-out images of both: mAP50
in percent, AP50 of the two classes, and how much of what the site reached alone is left of the class that lost more.
Then what a fleet would run, the release that the cloud's jobs make of both, beside the students of the sites; and what
tutor and release are after a second cycle of the same sites and images.

Liars: five parts of one site's data, small trainings of the student; one of the five sends minus five times its gap.

What is finished is kept in `runs/merging`. `QUICK=1` runs through all of it in two minutes with models that learn next
to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from environment import QUICK, BenchSite, Environment, Plan, choose_plan, describe_plan, run_job
from harness import run_benchmark
from report import COMMIT, Json, cached, draw, target

from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Predictor
from diredi.distillation.batches import Pool
from diredi.distillation.trainer import train
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.knowledge.gap_application import re_estimate, with_gap
from diredi.knowledge.jobs import apply_gap, extract, redistil
from diredi.knowledge.jobs.parts import contributions_of
from diredi.knowledge.jobs.specs import SiteGap
from diredi.knowledge.merging import Contribution, MergeRecipe, merge_gaps
from diredi.knowledge.reverse import seeded

Table = dict[str, dict[str, float]]
Forms = dict[str, Json]
"""A merge recipe by what it is called in the tables."""

SITES = ("scenes:site-3", "scenes:site-4")
OURS, TWICE, ALONE, NOTHING = "default", "default, two cycles", "each site alone", "no gap"
MERGED: Forms = {
    OURS: {},
    "union, statistics merged": {"method": "union", "batch_norm": "gap"},
    "mean": {"method": "mean"},
    "mean, statistics merged": {"method": "mean", "batch_norm": "gap"},
    "task arithmetic, scale 0.7": {"method": "task_arithmetic", "scale": 0.7},
    "task arithmetic, scale 0.7, statistics merged": {"method": "task_arithmetic", "scale": 0.7, "batch_norm": "gap"},
    "task arithmetic, length kept": {"method": "task_arithmetic"},
    "TIES, keep all": {"method": "ties", "keep": 1.0},
    "DARE, drop 0.5": {"method": "dare", "drop": 0.5},
    "clipped mean": {"method": "clipped_mean"},
}
"""Of two gaps median and trimmed mean are the mean, and Krum is refused."""
AMONG_LIARS: Forms = {
    name: {"method": name} for name in ("union", "mean", "median", "trimmed_mean", "clipped_mean", "krum", "ties")
}
PARTS, LIE = 5, -5.0
LEAST = 85.0
"""Percent of what each site reaches alone that the merged tutor must keep of its class."""


class Trial:
    """One seed: two sites, what each has extracted, and what the cloud makes of it."""

    def __init__(self, seed: int, plan: Plan, folder: Path) -> None:
        self.environment, self.folder = Environment(seed, plan), folder / f"seed-{seed}"
        self.sites = [self.environment.site(ref, *SITES[:index]) for index, ref in enumerate(SITES)]
        self.recipe = self.environment.cycle()
        self.labels = self.sites[-1].labels
        self.models: Json = {kind: self.environment.made[kind]["weights"] for kind in ("tutor", "student")}
        self.taken = [run_job(extract.main, self.folder / s.name, self._site_spec(s)) for s in self.sites]

    def _site_spec(self, site: BenchSite) -> Json:
        return self.environment.extract_spec(site, self.recipe)

    def listed(self, kind: str, sites: Sequence[int] = (0, 1)) -> list[Json]:
        """The gaps of `sites` as the cloud's jobs take them."""
        return [_sent(self.sites[i], self.taken[i], kind) for i in sites]

    @cached_property
    def cycles(self) -> list[Json]:
        """What the cloud's jobs make of both sites, and of both again, which then start from that: paths by kind."""
        first = self._made(self.folder, self.models, self.taken)
        models, place = {kind: first[kind] for kind in self.models}, self.folder / "second"
        specs = [{**self._site_spec(site), **models, "labels": self.labels.model_dump()} for site in self.sites]
        taken = [run_job(extract.main, place / s.name, spec) for s, spec in zip(self.sites, specs, strict=True)]
        return [first, self._made(place, models, taken)]

    def _made(self, folder: Path, models: Json, taken: Sequence[Json]) -> Json:
        """Merge, the lambda that does no harm, the choice of a student, export."""
        shared = {"presumed": str(self.environment.presumed_path), "recipe": self.recipe}
        gaps = {kind: [_sent(s, one, kind) for s, one in zip(self.sites, taken, strict=True)] for kind in models}
        tutor = {"tutor": models["tutor"], "gaps": gaps["tutor"]}
        updated = run_job(apply_gap.main, folder / "apply", {**shared, **tutor})["weights"]
        student = {"tutor": updated, "student": models["student"], "student_gaps": gaps["student"]}
        made = run_job(redistil.main, folder / "redistil", {**shared, **student})
        return {"tutor": updated, "student": made["weights"], "onnx": made["onnx"]["path"]}

    def merges(self, kind: str) -> Table:
        """Every method on the gaps of the tutor or of the student."""
        base = self.environment.tutor if kind == "tutor" else self.environment.student
        alone = [with_gap(base, _merged(self.listed(kind, [i]), base, {}), 1.0) for i in range(len(self.sites))]
        table = {NOTHING: self.metrics([base, base]), ALONE: self.metrics(alone)}
        for name, recipe in MERGED.items():
            detector = with_gap(base, _merged(self.listed(kind), base, recipe), 1.0)
            if MergeRecipe.model_validate(recipe).batch_norm == "re-estimate":
                re_estimate(detector, self.environment.presumed.train)
            table[name] = self.metrics([detector, detector])
        if kind == "tutor":
            again = registry.load(Path(self.cycles[1]["tutor"]))
            table[TWICE] = self.metrics([again, again])
        return _with_left(table)

    def metrics(self, predictors: Sequence[Predictor]) -> dict[str, float]:
        """On presumed images and at each site, there by its own predictor."""
        presumed = [self.environment.presumed_metrics(one).map50 for one in dict.fromkeys(predictors)]
        found = {"presumed": 100 * float(np.mean(presumed))}
        for site, predictor in zip(self.sites, predictors, strict=True):
            metrics = site.metrics(predictor)
            found[site.name] = 100 * metrics.map50
            found |= {name: 100 * metrics.per_class[name].ap50 for name in site.new}
        return found

    def release(self, alone: dict[str, float]) -> Table:
        """The releases of both cycles beside the students that the sites had made, `alone`."""
        found = [OnnxPredictor(Path(made["onnx"])) for made in self.cycles]
        table = {name: self.metrics([one, one]) for name, one in zip((OURS, TWICE), found, strict=True)}
        return _with_left({ALONE: alone, **table})

    def liars(self, steps: int) -> Table:
        """mAP50 at the first site without and with a liar among five."""
        honest = self._parts(steps)
        first, *others = honest
        lying = replace(first, gap=Gap(first.gap.weights * LIE, first.gap.note))
        base, site = self.environment.student, self.sites[0]
        table: Table = {NOTHING: dict.fromkeys(("honest", "one liar"), 100 * site.metrics(base).map50)}
        for name, recipe in AMONG_LIARS.items():
            gaps = {"honest": honest, "one liar": [lying, *others]}
            with_all = {
                said: merge_gaps(ours, base.weights(), MergeRecipe.model_validate(recipe))
                for said, ours in gaps.items()
            }
            table[name] = {said: 100 * site.metrics(with_gap(base, gap, 1.0)).map50 for said, gap in with_all.items()}
        return table

    def _parts(self, steps: int) -> list[Contribution]:
        """Five sites of a fifth of the first site's images each, which teach the student its own classes alone."""
        site, student = self.sites[0], self.environment.student
        known = self.environment.known
        ids = frozenset(range(len(known)))
        recipe = self.environment.recipe().student.model_copy(update={"steps": steps})
        note = GapNote(base_id="", labels=known, base_classes=len(known))
        found = []
        for part in range(PARTS):
            samples = [
                replace(one, boxes=one.boxes[np.isin(one.boxes[:, 0], list(ids))])
                for one in site.data.train[part::PARTS]
            ]
            taught = student.expand_classes(known)
            train(taught, [Pool(samples)], seeded(recipe, part), teacher=student)
            gap = compute(taught.weights(), student.weights(), student.weights())
            found.append(Contribution(f"part-{part}", Gap(gap, note), len(samples)))
        return found


def _sent(site: BenchSite, taken: Json, kind: str) -> Json:
    gap = taken[f"{kind}_gap"]
    return {"path": gap["path"], "codec": gap["codec"], "site": site.name, "images": taken["train_images"]}


def _merged(listed: list[Json], base: Detector, recipe: Json) -> Gap:
    gaps = [SiteGap.model_validate(one) for one in listed]
    return merge_gaps(contributions_of(gaps), base.weights(), MergeRecipe.model_validate(recipe))


def _with_left(table: Table) -> Table:
    """With the share, in percent, that is left of the new class that lost more."""
    new = [name for name in table[ALONE] if name in ("forklift", "excavator")]
    return {
        form: {**row, "left": min(100 * row[name] / max(table[ALONE][name], 1e-9) for name in new)}
        for form, row in table.items()
    }


def measure(seed: int, folder: Path) -> Json:
    plan = choose_plan()
    forms = {"merge_gaps": MERGED, "liars": AMONG_LIARS, "default": MergeRecipe().model_dump(), "twice": TWICE}
    made_from = {"plan": describe_plan(plan), **forms}

    def made() -> Json:
        trial = Trial(seed, plan, folder)
        students = trial.merges("student")
        return {
            "commits": [COMMIT],
            "tables": {
                "tutor": trial.merges("tutor"),
                "student gap": students,
                "release": trial.release(students[ALONE]),
                "liars": trial.liars(steps=8 if QUICK else 40),
            },
        }

    return cached(folder / f"seed-{seed}" / "tables.json", made_from, made)


def targets_of(rows: list[Json]) -> list[Json]:
    """Each is judged from the rows alone, seed by seed."""

    def seeds(table: str, form: str, column: str) -> Any:  # noqa: ANN401 - an array of numbers
        row = next(row for row in rows if (row["table"], row["form"]) == (table, form))
        return np.array(row[column]["seeds"])

    targets = []
    for table in ("tutor", "student gap"):
        left = seeds(table, OURS, "left")
        targets += [
            target(f"{table}: left of the new class that lost more, {which}, percent of alone", value, ">", LEAST)
            for which, value in (("mean", left.mean()), ("worst seed", left.min()))
        ]
    left = seeds("tutor", TWICE, "left").mean()
    targets.append(target("tutor: the same after a second cycle, mean, percent of alone", left, ">", LEAST))
    honest = seeds("liars", "mean", "honest")
    for name in ("median", "trimmed_mean", "krum"):
        lost = honest - seeds("liars", name, "one liar")
        targets.append(target(f"liars: lost by {name} to the mean of honest sites, mean, points", lost.mean(), "<", 5))
    return targets


def picture(rows: list[Json], title: str, path: Path) -> None:
    titles = {"tutor": "merged tutor", "student gap": "merged student gap"}
    draw(rows, titles, ("presumed", "forklift", "excavator"), f"two sites, two new classes; {title}", path)


if __name__ == "__main__":
    run_benchmark("merging", __doc__, measure, targets_of, picture)
