"""When, if ever, the second reverse distillation pays: `python bench/second_reverse_distillation.py [--seeds 0 1 2]`.

One reverse distillation: the gap is tutor 2 minus where it began. Two, the paper's form: tutor 2 minus tutor 1, which
learned the presumption alone. Each case varies one thing: what is presumed, how much of what the two tutors see is
shared, whether in the same order, where they begin, how many sites share one tutor 1, and what the cloud's tutor has
done since it gave itself away. All trainings of a seed have equally many steps, as many as tutor 2 has by default.

For either gap the larger of two lambdas is taken that does no harm on presumed images, as in a cycle; 0 where none
is harmless. With one, batch-norm statistics travel in the gap; with two they are measured again in the cloud, unless
the cloud's tutor is tutor 1: that is what suits each best. Held-out images are the cloud's, and those of the site or
sites; mAP50 in percent, AP50 of the forklift, which is new.

What is finished is kept in `runs/second_rd` and not measured again: delete it after a change of the code. `QUICK=1`
runs through all of it with tiny models that learn next to nothing, into `bench/results/quick`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Literal

import numpy as np
from environment import GPU, QUICK, BenchSite, Environment, choose_plan, describe_plan
from harness import run_benchmark
from numpy.typing import NDArray
from report import COMMIT, Json, cached, draw, target

from diredi.data.archive import unpack
from diredi.data.dataset import Dataset, load
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.trainer import train
from diredi.evaluation.detection import evaluate
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.knowledge.gap_application import AppliedGap, apply_gap
from diredi.knowledge.merging import Contribution, merge_gaps
from diredi.knowledge.reverse import SiteData, presumption, seeded
from diredi.knowledge.weight_kinds import kind_of
from diredi.store.weights import WeightMap

Columns = dict[str, float]
Numbers = NDArray[np.float64]
STEPS, LAMS, NEW = 300, (1.0, 0.4), "forklift"
SITES = ("scenes:site-1", "scenes:site-3")
ONE, TWO, MOVES = "one", "two", "moves"
AS_SHIPPED, AT_TUTOR_1, MOVED_ON = "the whole coreset", "the cloud's tutor is tutor 1", "the cloud's tutor moved on"
TUTOR, TUTOR_2, AGAIN = "the cloud's tutor", "tutor 2", "tutor 1, and tutor 1 in another order"


@dataclass(frozen=True)
class Case:
    """Two trainings, and what receives their difference."""

    after: Sequence[WeightMap]
    """Tutor 2 of each site."""
    before: WeightMap
    """Tutor 1."""
    start: WeightMap
    """Where both began, in the cloud's label space."""
    origin: WeightMap
    """What one reverse distillation subtracts."""
    receiver: WeightMap
    statistics: Literal["gap", "re-estimate"] = "re-estimate"
    """Of two reverse distillations."""


class Trial:
    """One seed: its trainings, each of them kept."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.environment, self.folder = Environment(seed), folder / f"seed-{seed}"
        first, second = SITES
        self.sites = [self.environment.site(first, second), self.environment.site(second, first)]
        self.labels = self.sites[0].labels
        self.note = GapNote(base_id="", labels=self.labels, base_classes=len(self.environment.known))
        training = self.environment.plan.cycle["tutor"] | ({} if GPU or QUICK else {"steps": STEPS})
        self.recipe = self.environment.recipe(tutor=training)
        self.tutor = self.environment.tutor.weights()

    def cases(self) -> dict[str, Case]:
        tutor, data = self.tutor, self._data(1.0)
        after, before = self._tutor_2(1.0), self._tutor_1(1.0)
        by_student = self._trained("tutor-1-student", self._presumption(data, "student"))
        no_coreset = self._trained("tutor-1-student-alone", self._presumption(self._data(0.0), "student"))
        fresh = {name: self._trained(f"{name}-fresh", pools, fresh=True) for name, pools in self._both(data).items()}
        elsewhere = self._trained("tutor-2-elsewhere", self._data(1.0, self.sites[1]).pools)
        moved = known_rows(self._reordered, tutor)
        return {
            AS_SHIPPED: Case([after], before, tutor, tutor, tutor),
            "half the coreset": Case([self._tutor_2(0.5)], self._tutor_1(0.5), tutor, tutor, tutor),
            "no coreset, the student's presumption": Case([self._tutor_2(0.0)], no_coreset, tutor, tutor, tutor),
            "the student's presumption": Case([after], by_student, tutor, tutor, tutor),
            "another order": Case([after], self._reordered, tutor, tutor, tutor),
            "a fresh start": Case([fresh["tutor-2"]], fresh["tutor-1"], self._fresh.weights(), tutor, tutor),
            "two sites, one tutor 1": Case([after, elsewhere], before, tutor, tutor, tutor),
            AT_TUTOR_1: Case([after], before, tutor, tutor, known_rows(before, tutor), "gap"),
            MOVED_ON: Case([after], before, tutor, tutor, moved),
        }

    def outcome(self, case: Case, form: str) -> Columns:
        """What the cloud would have of a case, and what the whole gap would have done."""
        sites = self.sites[: len(case.after)]
        receiver = registry.from_weights(self.environment.tutor.spec, case.receiver)
        applied = self._applied(receiver, case, form, LAMS)
        taken = applied.model if applied.harmless else receiver.expand_classes(self.labels)
        whole = self._metrics(self._applied(receiver, case, form, LAMS[:1]).model, sites)
        return {
            **self._metrics(taken, sites),
            "lambda": 0.0 if not applied.harmless or isinstance(applied.lam, dict) else float(applied.lam),
            "presumed at lambda 1": whole["presumed"],
            "site at lambda 1": whole["site"],
        }

    def _applied(self, receiver: Detector, case: Case, form: str, lams: Sequence[float]) -> AppliedGap:
        statistics = case.statistics if form == TWO else "gap"
        told = {"lam_candidates": lams, "batch_norm": statistics, "lam_search": "harmless"}
        recipe = self.recipe.model_copy(update=told)
        return apply_gap(receiver, self._gap(case, form), guard=self.environment.presumed, recipe=recipe)

    def moves(self, case: Case) -> Columns:
        return compared(self._step(case), compute(case.before, case.start, case.start), case.start)

    def models(self) -> dict[str, Columns]:
        there = {TUTOR: self.tutor, "tutor 1": self._tutor_1(1.0), TUTOR_2: self._tutor_2(1.0)}
        there["tutor 1 in another order"] = self._reordered
        grown = {name: weights for name, weights in there.items() if name != TUTOR}
        table = {TUTOR: self._metrics(self.environment.tutor, self.sites[:1])}
        for name, weights in grown.items():
            detector = registry.from_weights(self.environment.tutor.expand_classes(self.labels).spec, weights)
            table[name] = self._metrics(detector, self.sites[:1])
        return table

    def again(self) -> Columns:
        """How much of tutor 1's step is what it learned: two trainings that differ in nothing but order."""
        first, second = (compute(weights, self.tutor, self.tutor) for weights in (self._reordered, self._tutor_1(1.0)))
        return compared(first, second, self.tutor)

    @cached_property
    def _shipped(self) -> Dataset:
        place = self.folder / "coreset"
        shutil.rmtree(place, ignore_errors=True)
        return unpack(Path(self.environment.made["coreset"]["path"]), place)

    @cached_property
    def _fresh(self) -> Detector:
        spec = self.environment.tutor.spec
        return registry.create(spec.architecture, spec.image_size, spec.labels, self.environment.seed)

    @cached_property
    def _reordered(self) -> WeightMap:
        """Tutor 1 by other batches: what the cloud would make of the same images by itself."""
        return self._trained("tutor-1-reordered", self._presumption(self._data(1.0), "presumed"), order=1000)

    def _tutor_2(self, share: float) -> WeightMap:
        return self._trained(f"tutor-2-{share:g}", self._data(share).pools)

    def _tutor_1(self, share: float) -> WeightMap:
        return self._trained(f"tutor-1-{share:g}", self._presumption(self._data(share), "presumed"))

    def _both(self, data: SiteData) -> dict[str, list[Pool]]:
        return {"tutor-2": data.pools, "tutor-1": self._presumption(data, "presumed")}

    def _presumption(self, data: SiteData, kind: str) -> list[Pool]:
        return presumption(self.environment.student, data, self.recipe.model_copy(update={"presumption": kind}))

    def _data(self, share: float, site: BenchSite | None = None) -> SiteData:
        """What a site learns from, with a share of the coreset."""
        images = round(share * len(self._shipped.train))
        coreset = self._shipped.sample(images, self.environment.seed) if images else None
        return SiteData.of(load((site or self.sites[0]).path), coreset, self.labels, presumed_shows_new=False)

    def _trained(self, name: str, pools: Sequence[Pool], order: int = 0, fresh: bool = False) -> WeightMap:
        path = self.folder / f"{name}.safetensors"
        training = seeded(self.recipe.tutor, self.environment.seed + order)

        def make() -> Json:
            detector = (self._fresh if fresh else self.environment.tutor).expand_classes(self.labels)
            report = train(detector, pools, training, teacher=self.environment.student)
            detector.weights().save(path)
            return {"seconds": report.seconds}

        cached(
            path.with_suffix(".json"),
            {"training": training.model_dump(), "world": describe_plan(self.environment.plan)},
            make,
        )
        return WeightMap.load(path)

    def _gap(self, case: Case, form: str) -> Gap:
        before = case.before if form == TWO else case.origin
        gaps = [Gap(compute(after, before, self.tutor), self.note) for after in case.after]
        sent = [Contribution(site.name, gap, 1) for site, gap in zip(self.sites, gaps, strict=False)]
        return merge_gaps(sent, self.tutor, self.recipe.merge)

    def _step(self, case: Case) -> WeightMap:
        gaps = [Gap(compute(after, case.start, case.start), self.note) for after in case.after]
        sent = [Contribution(site.name, gap, 1) for site, gap in zip(self.sites, gaps, strict=False)]
        return merge_gaps(sent, case.start, self.recipe.merge).weights

    def _metrics(self, detector: Detector, sites: Sequence[BenchSite]) -> Columns:
        at_sites = [site.metrics(detector) for site in sites]
        return {
            "presumed": 100 * evaluate(detector, self.environment.presumed).map50,
            "site": 100 * mean(metrics.map50 for metrics in at_sites),
            NEW: 100 * mean(metrics.per_class[NEW].ap50 for metrics in at_sites),
        }


def known_rows(weights: WeightMap, base: WeightMap) -> WeightMap:
    """`weights` without the rows of classes that `base` does not have."""
    return WeightMap({name: weights[name][: len(array)] if array.ndim else array for name, array in base.items()})


def compared(step: WeightMap, presumption: WeightMap, start: WeightMap) -> Columns:
    """How far two trainings have gone from one start, in parameters that the cloud has too, and how far together."""
    names = [name for name in step if kind_of(name, "float32").value == "parameter"]
    first, second = (
        np.concatenate([gap[name][: len(start[name])].ravel().astype(np.float64) for name in names])
        for gap in (step, presumption)
    )
    lengths = [float(np.linalg.norm(vector)) for vector in (first, second)]
    return {
        "length of tutor 2's": lengths[0],
        "length of tutor 1's": lengths[1],
        "cosine": float(first @ second) / (lengths[0] * lengths[1]),
        "two over one": float(np.linalg.norm(first - second)) / lengths[0],
    }


def tables(seed: int, folder: Path) -> Json:
    trial = Trial(seed, folder)
    found: dict[str, dict[str, Columns]] = {"models": trial.models(), ONE: {}, TWO: {}, MOVES: {AGAIN: trial.again()}}
    for name, case in trial.cases().items():
        for form in (ONE, TWO):
            found[form][name] = trial.outcome(case, form)
        found[MOVES][name] = trial.moves(case)
    return {"commits": [COMMIT], "tables": found}


def targets_of(rows: list[Json]) -> list[Json]:
    """Each is judged from the rows alone, seed by seed; points are of mAP50 in percent."""

    def seeds(table: str, form: str, column: str) -> Numbers:
        row = next(row for row in rows if (row["table"], row["form"]) == (table, form))
        return np.array(row[column]["seeds"])

    def gains(form: str) -> Numbers:
        return seeds(TWO, form, "site") - seeds(ONE, form, "site")

    cases = [row["form"] for row in rows if row["table"] == TWO]
    others = [gains(form).mean() for form in cases if form != AT_TUTOR_1]
    followed = seeds(TWO, AT_TUTOR_1, "site at lambda 1") - seeds(ONE, AT_TUTOR_1, "site at lambda 1")
    exact = abs(seeds(TWO, AT_TUTOR_1, "presumed at lambda 1") - seeds("models", TUTOR_2, "presumed"))
    return [
        target("two minus one on the site, as shipped, mean, points", gains(AS_SHIPPED).mean(), "<", 0),
        target("two minus one on the site, best other case, mean, points", max(others), "<", 0),
        target("where the cloud's tutor is tutor 1, two and tutor 2 differ by, points", exact.max(), "<", 0.1),
        target("there, two minus one on the site with the whole gap, mean, points", followed.mean(), ">", 0),
        target("cosine of the two steps, as shipped, mean", seeds(MOVES, AS_SHIPPED, "cosine").mean(), "<", 0.5),
        target("length of two over one, as shipped, mean", seeds(MOVES, AS_SHIPPED, "two over one").mean(), ">", 1),
    ]


def measure(seed: int, folder: Path) -> Json:
    from_these = {"plan": describe_plan(choose_plan()), "steps": STEPS, "lambdas": LAMS}
    return cached(folder / f"seed-{seed}.json", from_these, partial(tables, seed, folder))


def picture(rows: list[Json], title: str, path: Path) -> None:
    draw(rows, {ONE: "one reverse distillation", TWO: "two reverse distillations"}, ("presumed", "site"), title, path)


if __name__ == "__main__":
    run_benchmark("second_rd", __doc__, measure, targets_of, picture)
