"""The forms of the gap that `docs/decisions/0010-gap.md` decides between: `python bench/gap_forms.py [--seeds 0 1 2]`.

For each seed the jobs of a cloud and a site make tutor, student and gaps from the built-in scenes. Then each form of
the gap is added to the cloud's tutor, each candidate for the release is made, and all are measured on the held-out
images of both: mAP50 in percent (of the ONNX file for a candidate), AP50 of the forklift, which is new; the mean of the
seeds, the lowest and the highest. Training gives equal figures only on equal machines with equal numbers of threads.

What is finished is kept in `runs/gap_forms` and not measured again: delete it after a change of the code. `QUICK=1`
runs through all of it in two minutes with tiny models that learn next to nothing, into `bench/results/quick`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from report import WARNING, Json, commit, draw, kept, rows_of, shown, target, write

from diredi.data.dataset import load, subset
from diredi.data.sources import resolve
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Predictor
from diredi.distillation.trainer import train
from diredi.evaluation.detection import evaluate
from diredi.jobs import Report
from diredi.knowledge.apply import re_estimate, with_gap
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.knowledge.jobs import apply_gap, bootstrap, extract, redistil
from diredi.knowledge.policy import kind_of
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import SiteData, presumption, seeded
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

Table = dict[str, dict[str, float]]
"""What was measured, by column, of each form."""

HERE, NEW = Path(__file__).parent, "forklift"
TUTOR, STUDENT, NOTHING = "the cloud's tutor", "the old student", "no student gap"
OLD, AGAIN, OF_ONE = "statistics of the old tutor", "statistics re-estimated", "statistics from one"
FORMS = (
    ("one", 1.0, ""), ("one", 0.5, ""), ("one", 1.0, AGAIN), ("one", 1.0, OLD),
    ("two", 1.0, ""), ("two", 0.5, ""), ("two", 0.2, ""),
    ("two", 1.0, AGAIN), ("two", 0.5, AGAIN), ("two", 1.0, OF_ONE), ("two", 0.5, OLD),
)  # fmt: skip
"""Reverse distillations, lambda, and what becomes of batch-norm statistics where they are not in the gap."""


@dataclass(frozen=True)
class Setting:
    work: Path = HERE.parent / "runs" / "gap_forms"
    out: Path = HERE / "results"
    presumed: tuple[int, int] = (600, 150)
    site: tuple[int, int] = (240, 100)
    image_size: int = 160
    tutor: str = "yolo11n"
    bootstrap: Json = field(default_factory=dict)
    cycle: Json = field(default_factory=dict)


def quick_setting() -> Setting:
    out, few = HERE / "results" / "quick", {"steps": 8}
    taught, cycle = {"tutor": {"steps": 36}, "student": {"steps": 36}}, {"tutor": few, "student": few, "redistil": few}
    return Setting(out / "gap_forms", out, (48, 24), (48, 24), 64, "yolo11-w0.125", taught, cycle)


def job(main: Callable[[Json, Path, Report], Json], folder: Path, spec: Json) -> Json:
    return kept(folder / "result.json", spec, lambda: main(spec, folder, lambda step, fraction, message: None))


class Trial:
    """One seed: the two data sets, and the jobs on them."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.folder = setting.work / f"seed-{seed}"
        shown, private = (
            resolve(f"scenes:{site}", setting.work / "data", seed, *images)
            for site, images in (("presumed", setting.presumed), ("site-1", setting.site))
        )
        ours, self.private = load(shown), load(private)
        known = LabelSpace(names=ours.names)
        self.labels = known.grown(self.private.names)
        self.note = GapNote(base_id="", labels=self.labels, base_classes=len(known))
        self.presumed, self.site = (data.mapped_to(self.labels) for data in (ours, self.private))
        given = {"seed": seed, **setting.cycle}
        self.recipe = CycleRecipe.of(given)
        self.spec: Json = {"presumed": str(shown), "labels": self.labels.model_dump(), "recipe": given}
        self.spec["codec"] = self.recipe.codec
        made_from = {"presumed": str(shown), "image_size": setting.image_size, "tutor": setting.tutor}
        recipe = {"seed": seed, **setting.bootstrap}
        self.first = job(bootstrap.main, self.folder / "bootstrap", {**made_from, "recipe": recipe})
        self.tutor, self.student = (registry.load(Path(self.first[kind]["weights"])) for kind in ("tutor", "student"))
        models = {kind: self.first[kind]["weights"] for kind in ("tutor", "student")}
        given_to_site = {**models, "data": str(private), "coreset": self.first["coreset"]["path"]}
        self.taken = job(extract.main, self.folder / "extract", {**self.spec, **given_to_site})

    def figures(self, predictor: Predictor) -> dict[str, float]:
        known, site = (evaluate(predictor, data.val, self.labels) for data in (self.presumed, self.site))
        return {"presumed": 100 * known.map50, "site": 100 * site.map50, NEW: site.per_class[NEW].ap50}

    def decoded(self, base: Detector, kind: str) -> Detector:
        """`base` and all of the site's gap, as it comes out of the codec."""
        return with_gap(base, Gap.from_bytes(Path(self.taken[f"{kind}_gap"]["path"]).read_bytes()), 1.0)

    def gaps(self) -> dict[str, Table]:
        """Each form of the gap, added; and how far the two tutors have moved from the cloud's, in parameters."""
        base, w2 = self.tutor.weights(), self.decoded(self.tutor, "tutor").weights()
        tutor_1 = self.tutor.grown(self.labels)
        train(
            tutor_1,
            presumption(self.student, self._site_data(), self.recipe),
            seeded(self.recipe.tutor, self.recipe.seed),
            teacher=self.student,
        )
        w1 = tutor_1.weights()
        one, two = compute(w2, base, base), compute(w2, w1, base)
        table = {TUTOR: self.figures(self.tutor), "tutor 1": self.figures(tutor_1)}
        table |= {named(*form): self.figures(self._updated(one, two, *form)) for form in FORMS}
        moves = [gap.selected(lambda name: not is_statistic(name)) for gap in (one, compute(w1, base, base))]
        both = sum(float(np.vdot(moves[0][name].astype(np.float64), moves[1][name])) for name in moves[0])
        norms = [move.norm() for move in moves]
        cosine = both / (norms[0] * norms[1])
        return {"gap": table, "moves": {"norms": {"tutor 2": norms[0], "tutor 1": norms[1], "cosine": cosine}}}

    def _site_data(self) -> SiteData:
        """As the job had it, which has left the coreset where it unpacked it."""
        unpacked = load(self.folder / "extract" / "coreset" / "data.yaml", ["train"])
        coreset = subset(unpacked, self.recipe.coreset_images, self.recipe.seed)
        return SiteData.of(self.private, coreset, self.labels, self.recipe.presumed_shows_new)

    def _updated(self, one: WeightMap, two: WeightMap, form: str, lam: float, treatment: str) -> Detector:
        gap = {"one": one, "two": two}[form]
        if treatment == OLD:
            gap = gap.selected(lambda name: not is_statistic(name))
        if treatment == OF_ONE:
            gap = WeightMap({name: (one if is_statistic(name) else gap)[name] for name in gap})
        updated = with_gap(self.tutor, Gap(gap, self.note), lam)
        if treatment == AGAIN:
            re_estimate(updated, self.presumed.train)
        return updated

    def releases(self) -> Table:
        theirs = {"tutor": self.first["tutor"]["weights"], "gaps": [self._sent("tutor")]}
        tutor = job(apply_gap.main, self.folder / "apply", {**self.spec, **theirs})["weights"]
        spec = {**self.spec, "tutor": tutor, "student": self.first["student"]["weights"]}
        table = {STUDENT: self.figures(self.student)}
        for kind in ("gap", "redistilled", "mean", NOTHING):
            gaps = [] if kind == NOTHING else [self._sent("student")]
            recipe = self.spec["recipe"] | ({} if kind == NOTHING else {"students": [kind]})
            folder = self.folder / f"redistil-{kind.replace(' ', '-')}"
            made = job(redistil.main, folder, {**spec, "student_gaps": gaps, "recipe": recipe})
            table[kind] = self.figures(OnnxPredictor(Path(made["onnx"]["path"])))
        return table

    def _sent(self, kind: str) -> Json:
        gap = self.taken[f"{kind}_gap"]
        return {"path": gap["path"], "codec": gap["codec"], "site": "site-1", "images": self.taken["train_images"]}

    def travels(self) -> Table:
        table = {}
        for kind, base in (("tutor", self.tutor), ("student", self.student)):
            gap, before = self.taken[f"{kind}_gap"], self.taken[f"{kind}_after"]["map50"]
            after = self.figures(self.decoded(base, kind))["site"]
            sizes = {"fp32 MB": gap["fp32_bytes"] / 1e6, "encoded MB": gap["bytes"] / 1e6}
            table[kind] = {**sizes, "site before": 100 * before, "site after": after}
        return table


def tables(setting: Setting, seed: int) -> Json:
    trial = Trial(setting, seed)
    made = {**trial.gaps(), "release": trial.releases(), "codec": trial.travels()}
    return {"commit": commit(), "tables": made}


def is_statistic(name: str) -> bool:
    return kind_of(name, "float32").is_statistic


def named(form: str, lam: float, treatment: str) -> str:
    return f"{form}, lambda {lam:g}" + (treatment and f", {treatment}")


def targets_of(rows: list[Json]) -> list[Json]:
    """Each is judged from the rows alone, seed by seed; points are of mAP50 in percent."""

    def seeds(table: str, form: str, column: str) -> Any:  # noqa: ANN401 - an array of numbers
        row = next(row for row in rows if (row["table"], row["form"]) == (table, form))
        return np.array(row[column]["seeds"])

    def best(gap: str) -> Any:  # noqa: ANN401 - an array of numbers
        found = seeds("gap", TUTOR, "site")  # no gap at all does no harm either
        for form in (named(*form) for form in FORMS if form[0] == gap):
            harmless = seeds("gap", TUTOR, "presumed") - seeds("gap", form, "presumed") <= harm
            found = np.where(harmless, np.maximum(found, seeds("gap", form, "site")), found)
        return found

    harm, kinds = 100 * CycleRecipe.of(None).max_harm, ("tutor", "student")
    lost = [abs(seeds("codec", kind, "site before") - seeds("codec", kind, "site after")).max() for kind in kinds]
    share = 100 * sum(seeds("codec", kind, "encoded MB") for kind in kinds) / seeds("codec", "tutor", "fp32 MB")
    keeps = seeds("release", "mean", "presumed") - seeds("release", STUDENT, "presumed")
    learns = seeds("release", "mean", "site") - seeds("release", NOTHING, "site")
    gains = best("one") - best("two")
    return [
        target("one minus two on the site, best harmless form of each (or no gap), mean, points", gains.mean(), ">", 0),
        target("mean minus the old student on presumed images, worst seed, points", keeps.min(), ">", -harm),
        target("mean minus no student gap on the site, mean, points", learns.mean(), ">", 0),
        target("change of mAP50 on the site by the codec, worst seed, points", max(lost), "<", harm),
        target("both gaps together over the tutor's fp32 weights, mean, percent", share.mean(), "<", 25),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2, quick 0 1")
    quick = os.environ.get("QUICK", "") not in ("", "0")
    wanted = parser.parse_args().seeds or ([0, 1] if quick else [0, 1, 2])
    setting = quick_setting() if quick else Setting()
    made = [
        kept(setting.work / f"seed-{seed}.json", asdict(setting), partial(tables, setting, seed)) for seed in wanted
    ]
    rows = rows_of(made)
    targets, listed = targets_of(rows), " ".join(map(str, wanted))
    shown(rows, targets)
    commits = sorted({str(one["commit"]) for one in made})
    said = f"{'QUICK=1 ' if quick else ''}python bench/gap_forms.py --seeds {listed}"
    found = {"command": said, "commit": ", ".join(commits), "quick": quick, "rows": rows, "targets": targets}
    write(setting.out, "gap_forms", found)
    titles = {"gap": "gap added to the cloud's tutor", "release": "what becomes the release"}
    draw(rows, titles, ("presumed", "site"), WARNING if quick else f"seeds {listed}", setting.out / "gap_forms.png")


if __name__ == "__main__":
    main()
