"""The forms of the gap that `docs/decisions/0010-gap.md` decides between: `python bench/gap_forms.py [--seeds 0 1 2]`.

For each seed the jobs of a site make gaps from the built-in scenes, with the defaults of a cycle. Then each form of
the gap is added to the cloud's tutor, lambda is searched for by each rule, and all are measured on held-out images of
the cloud and the site: mAP50 in percent, AP50 of the forklift, which is new. Lambda is searched for with the gap of a
site that was given a small coreset, so that the whole gap does a little harm; its scores come from the site's held-out
images, and the table's figures from others of the same cameras. "teaching" is about what the deployed student may
teach tutor 2 at a site that has labelled everything, and at one that has labelled the forklift alone.

What is finished is kept in `runs/gap_forms` and not measured again: delete it after a change of the code. `QUICK=1`
runs through all of it with tiny models that learn next to nothing, into `bench/results/quick`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from environment import Environment, describe_plan, run_job
from harness import run_benchmark
from report import COMMIT, Json, cached, draw, target

from diredi.data.dataset import Sample, load
from diredi.data.sources import resolve
from diredi.detectors.base import Detector
from diredi.detectors.predictor import Predictor
from diredi.distillation.batches import Pool
from diredi.distillation.trainer import train
from diredi.evaluation.detection import evaluate
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.knowledge.gap_application import re_estimate, with_gap
from diredi.knowledge.jobs import extract
from diredi.knowledge.lambda_search import Score, Shares, search
from diredi.knowledge.lambda_search import said as lam_of
from diredi.knowledge.recipe import SECTIONS, CycleRecipe
from diredi.knowledge.reverse import SiteData, presumption, seeded
from diredi.knowledge.weight_kinds import kind_of
from diredi.store.weights import WeightMap

Table = dict[str, dict[str, float]]
"""What was measured, by column, of each form."""

SITE, SITE_OF_UPDATE, NEW = "scenes:site-1", "site-1, new light and class", "forklift"
TUTOR = "the cloud's tutor"
SMALL = 100
"""Images of the coreset that leaves a whole gap harmful and some lambda harmless; with 200 both are."""
OLD, AGAIN, OF_ONE = "statistics of the old tutor", "statistics re-estimated", "statistics from one"
FORMS = (
    ("one", 1.0, ""), ("one", 0.5, ""), ("one", 1.0, AGAIN), ("one", 1.0, OLD),
    ("two", 1.0, ""), ("two", 0.5, ""), ("two", 1.0, AGAIN), ("two", 0.5, AGAIN), ("two", 1.0, OF_ONE),
)  # fmt: skip
"""Reverse distillations, lambda, and what becomes of batch-norm statistics where they are not in the gap."""
HARMLESS, TWO_AXES, BY_SECTION = "harmless", "two-axes", ", then by section"
SEARCHES: dict[str, Json] = {
    HARMLESS: {"lam_search": HARMLESS},
    TWO_AXES: {"lam_search": TWO_AXES},
    HARMLESS + BY_SECTION: {"lam_search": HARMLESS, "lam_sections": True},
    TWO_AXES + BY_SECTION: {"lam_search": TWO_AXES, "lam_sections": True},
}
TEACHING: dict[str, Json] = {
    "default": {},
    "the student teaches everything": {"teaches": "everything"},
    "nobody teaches": {"losses": {}},
}


class Trial:
    """One seed: an environment, its site, and the jobs on them."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.environment, self.folder = Environment(seed), folder / f"seed-{seed}"
        self.site = self.environment.site(SITE)
        self.labels = self.site.labels
        self.note = GapNote(
            base_id=self.environment.base_id, labels=self.labels, base_classes=len(self.environment.known)
        )
        self.presumed = self.environment.presumed.with_labels(self.labels)
        self.recipe = self.environment.recipe()
        ours = folder.parent / folder.name.replace("gap_forms", "update") / SITE_OF_UPDATE / f"seed-{seed}" / "ours"
        self._at_site = ours / "extract"  # the site's part of the cycle is that of bench-update
        self.taken = run_job(
            extract.main, self._at_site, self.environment.extract_spec(self.site, self.environment.cycle())
        )

    def table(self, name: str, make: Callable[[], Table]) -> Json:
        """A table and the commit that measured it."""
        made_from = describe_plan(self.environment.plan) | ({"coreset": SMALL} if name == "lambda" else {})
        return cached(self.folder / f"{name}.json", made_from, lambda: {"commit": COMMIT, "table": make()})

    def metrics(self, predictor: Predictor) -> dict[str, float]:
        return self._on(predictor, self.site.data.val)

    def gaps(self) -> Table:
        """Each form of the gap, added."""
        tutor = self.environment.tutor
        base, w2 = tutor.weights(), self._tutor_2.weights()
        tutor_1 = tutor.expand_classes(self.labels)
        pools = presumption(self.environment.student, self._site_data(), self.recipe)
        train(tutor_1, pools, seeded(self.recipe.tutor, self.recipe.seed), teacher=self.environment.student)
        one, two = compute(w2, base, base), compute(w2, tutor_1.weights(), base)
        table = {TUTOR: self.metrics(tutor), "tutor 1": self.metrics(tutor_1)}
        return table | {form_name(*form): self.metrics(self._updated(one, two, *form)) for form in FORMS}

    def teaching(self) -> Table:
        """Tutor 2 by what is labelled and by what the student teaches."""
        whole, new = self._site_data(), self.labels.names.index(NEW)
        bare = [replace(s, boxes=s.boxes[s.boxes[:, 0] == new]) for s in whole.private.samples]
        few = replace(whole, private=Pool(bare, frozenset([new])))
        table = {TUTOR: self.metrics(self.environment.tutor), "all labelled, default": self.metrics(self._tutor_2)}
        for said_of, data in (("all labelled", whole), (f"only {NEW}s labelled", few)):
            for name, options in TEACHING.items():
                if (row := f"{said_of}, {name}") not in table:
                    taught = self.environment.tutor.expand_classes(self.labels)
                    recipe = seeded(self.recipe.tutor.model_copy(update=options), self.recipe.seed)
                    train(taught, data.pools, recipe, teacher=self.environment.student)
                    table[row] = self.metrics(taught)
        return table

    @property
    def _tutor_2(self) -> Detector:
        return self.decoded(self.environment.tutor, "tutor")

    def searches(self) -> Table:
        """What each rule finds for the gap of a site with a small coreset, and how many measurements that took."""
        recipe = self.environment.cycle(coreset_images=SMALL, student_gap=False, lam_search=TWO_AXES)
        taken = run_job(
            extract.main, self.folder / f"extract-{SMALL}", self.environment.extract_spec(self.site, recipe)
        )
        gap = Gap.from_bytes(Path(taken["tutor_gap"]["path"]).read_bytes())
        scores = [Score.model_validate(score) for score in taken["scores"]]
        known: dict[tuple[float, ...], float] = {}
        before = self._presumed_map50(self.environment.tutor)
        table = {TUTOR: self._lam_columns(self.environment.tutor, {}, 0)}
        for name, options in SEARCHES.items():
            asked: set[tuple[float, ...]] = set()

            def harm(shares: Shares, asked: set[tuple[float, ...]] = asked) -> float:
                key = tuple(shares[section] for section in SECTIONS)
                asked.add(key)
                if key not in known:
                    known[key] = before - self._presumed_map50(with_gap(self.environment.tutor, gap, lam_of(shares)))
                return known[key]

            shares = search(CycleRecipe.of({**recipe, **options}), [scores], harm)
            updated = with_gap(self.environment.tutor, gap, lam_of(shares))
            table[name] = self._lam_columns(updated, shares, len(asked))
        return table

    def travels(self) -> Table:
        table = {}
        for kind, base in (("tutor", self.environment.tutor), ("student", self.environment.student)):
            gap, before = self.taken[f"{kind}_gap"], self.taken[f"{kind}_after"]["map50"]
            after = self.metrics(self.decoded(base, kind))["site"]
            sizes = {"fp32 MB": gap["fp32_bytes"] / 1e6, "encoded MB": gap["bytes"] / 1e6}
            table[kind] = {**sizes, "site before": 100 * before, "site after": after}
        return table

    def decoded(self, base: Detector, kind: str) -> Detector:
        """`base` and all of the site's gap, as it comes out of the codec."""
        return with_gap(base, Gap.from_bytes(Path(self.taken[f"{kind}_gap"]["path"]).read_bytes()), 1.0)

    @cached_property
    def _others(self) -> Sequence[Sample]:
        """Images of the site that no score has seen: those after the held-out ones."""
        seen = len(self.site.data.val)
        path = resolve(SITE, self.environment.plan.folder / "data", self.environment.seed, 1, 2 * seen)
        return load(path, ["val"]).with_labels(self.labels).val[seen:]

    def _on(self, predictor: Predictor, samples: Sequence[Sample]) -> dict[str, float]:
        site = evaluate(predictor, samples, self.labels)
        presumed = 100 * self._presumed_map50(predictor)
        return {"presumed": presumed, "site": 100 * site.map50, NEW: 100 * site.per_class[NEW].ap50}

    def _presumed_map50(self, predictor: Predictor) -> float:
        return evaluate(predictor, self.presumed.val, self.labels).map50

    def _lam_columns(self, updated: Detector, shares: Shares, asked: int) -> dict[str, float]:
        lams: dict[str, float] = {section: shares.get(section, 0.0) for section in SECTIONS}
        return {**self._on(updated, self._others), **lams, "measurements": asked}

    def _site_data(self) -> SiteData:
        """As the job had it."""
        unpacked = load(self._at_site / "coreset" / "data.yaml", ["train"])  # where the job has left it
        drawn = unpacked.sample(self.recipe.coreset_images, self.recipe.seed)
        return SiteData.of(load(self.site.path), drawn, self.labels, self.recipe.presumed_shows_new)

    def _updated(self, one: WeightMap, two: WeightMap, form: str, lam: float, treatment: str) -> Detector:
        gap = {"one": one, "two": two}[form]
        if treatment == OLD:
            gap = gap.selected(lambda name: not is_statistic(name))
        if treatment == OF_ONE:
            gap = WeightMap({name: (one if is_statistic(name) else gap)[name] for name in gap})
        updated = with_gap(self.environment.tutor, Gap(gap, self.note), lam)
        if treatment == AGAIN:
            re_estimate(updated, self.presumed.train)
        return updated


def tables(seed: int, folder: Path) -> Json:
    trial = Trial(seed, folder)
    made = {"gap": trial.gaps, "teaching": trial.teaching, "lambda": trial.searches, "codec": trial.travels}
    found = {name: trial.table(name, make) for name, make in made.items()}
    return {
        "commits": sorted({str(one["commit"]) for one in found.values()}),
        "tables": {name: one["table"] for name, one in found.items()},
    }


def is_statistic(name: str) -> bool:
    return kind_of(name, "float32").is_statistic


def form_name(form: str, lam: float, treatment: str) -> str:
    return f"{form}, lambda {lam:g}" + (treatment and f", {treatment}")


def targets_of(rows: list[Json]) -> list[Json]:
    """Each is judged from the rows alone, seed by seed; points are of mAP50 in percent."""

    def seeds(table: str, form: str, column: str) -> Any:  # noqa: ANN401 - an array of numbers
        row = next(row for row in rows if (row["table"], row["form"]) == (table, form))
        return np.array(row[column]["seeds"])

    def best(gap: str) -> Any:  # noqa: ANN401 - an array of numbers
        found = seeds("gap", TUTOR, "site")  # no gap at all does no harm either
        for form in (form_name(*form) for form in FORMS if form[0] == gap):
            harmless = seeds("gap", TUTOR, "presumed") - seeds("gap", form, "presumed") <= harm
            found = np.where(harmless, np.maximum(found, seeds("gap", form, "site")), found)
        return found

    harm, kinds = 100 * CycleRecipe.of(None).max_harm, ("tutor", "student")
    lost = [abs(seeds("codec", kind, "site before") - seeds("codec", kind, "site after")).max() for kind in kinds]
    share = 100 * sum(seeds("codec", kind, "encoded MB") for kind in kinds) / seeds("codec", "tutor", "fp32 MB")
    gains = best("one") - best("two")
    few = {name: seeds("teaching", f"only {NEW}s labelled, {name}", "site") for name in TEACHING}
    taught = few["default"] - few["nobody teaches"]
    found = {name: seeds("lambda", name, "site") - seeds("lambda", HARMLESS, "site") for name in SEARCHES}
    return [
        target("one minus two on the site, best harmless form of each (or no gap), mean, points", gains.mean(), ">", 0),
        *[
            target(f"{n} minus {HARMLESS} on the site, mean, points", found[n].mean(), ">", 0)
            for n in SEARCHES
            if n != HARMLESS
        ],
        target(
            f"only {NEW}s labelled: a student that teaches minus none, on the site, mean, points", taught.mean(), ">", 0
        ),
        target("change of mAP50 on the site by the codec, worst seed, points", max(lost), "<", harm),
        target("both gaps together over the tutor's fp32 weights, mean, percent", share.mean(), "<", 25),
    ]


def picture(rows: list[Json], title: str, path: Path) -> None:
    titles = {"gap": "gap added to the cloud's tutor", "teaching": "tutor 2: what is labelled, what is taught"}
    titles |= {"lambda": "how much of a gap that does harm"}
    draw(rows, titles, ("presumed", "site"), title, path)


if __name__ == "__main__":
    run_benchmark("gap_forms", __doc__, tables, targets_of, picture)
