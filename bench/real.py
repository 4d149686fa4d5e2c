"""The default cycle on real detectors and real images: `make bench-real`.

Detectors that COCO taught, coco128 as presumed data, and sites with real cameras (see `bench/environment.py` for where
they lie). The cycle is the default one: no option of the recipe is given. Beside it stand

- fine-tuning with all weights from the shipped images and the site's, at each of three rates, and what is between it
  and release 1, weight by weight. The shipped images are all that the manufacturer has here, so at its best rate for
  the site this is also the upper bound of learning, whatever it forgets;
- a null arm: the same without the site's images, which shows what such a training costs by itself.

Each is judged on held-out images: the manufacturer's, the site's by old and by new classes, and how often new classes
are found on 100 of the manufacturer's, which show none.

What is finished is kept in `runs/real` and not measured again: delete it after a change of the code. `QUICK=1` takes
one site, one pair and a few steps, into `bench/results/quick`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from baselines.alone import site_pool
from environment import GPU, QUICK, BenchSite, Plan, describe_plan, real_plan, use_one_thread
from harness import folder_of, parser_of, report_results
from report import COMMIT, Json, cached, draw, seconds, target
from update import NEW, OLD, Columns, Outcome, Scenario, Trial, evaluate_classes

from diredi.data.dataset import SPLITS
from diredi.data.yolo import label_file_of
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.evaluation.false_alarms import false_alarms
from diredi.knowledge.gap import apply, compute
from diredi.knowledge.recipe import CycleRecipe

PRESUMED, COST = "presumed", "cost"
OURS, BEFORE, TUNED = "DiReDi, default", "release 1", "fine-tuning with presumed images"
RATES = (3e-5, 1e-4, 3e-4)
SHARES = (0.25, 0.5, 0.75, 1.0)
PAIRS = (("yolov8s.pt", "yolov8n.pt"), ("yolo26m.pt", "yolo26n.pt"))
CAMERAS = ("roundabout", "nighthighway", "boulevard", "motorway", "curve", "avenue")
TOLERANCE = 1.0
"""Points of mAP50 on presumed images that may be forgotten."""


@dataclass(frozen=True)
class RealScenario(Scenario):
    """A pair of detectors and a site; of traffic_cams maybe one camera alone."""

    camera: str = ""


class RealTrial(Trial):
    """One scenario and seed."""

    def __init__(self, scenario: RealScenario, seed: int, folder: Path) -> None:
        super().__init__(scenario, seed, folder)
        if scenario.camera:
            self.site = _one_camera(self.site, scenario.camera, self.folder)
        self.recipe = CycleRecipe()
        self.epochs = self.environment.plan.cycle.get("branch", {}).get("epochs", self.recipe.branch.epochs)

    def fine_tune(self, rate: float, *, site: bool = True, presumed: bool = True) -> tuple[Detector, float]:
        """The deployed student learns with all weights and still statistics, for as many epochs as a branch."""
        student = self.environment.student.expand_classes(self.site.labels)
        pools = [site_pool(self.site)] if site else []
        pools += [Pool(self.environment.coreset)] if presumed else []
        began = seconds()
        recipe = TrainRecipe(
            epochs=self.epochs, learning_rate=rate, batch_norm="frozen", seed=self.environment.seed, losses={}
        )
        train(student, pools, recipe)
        return student, seconds() - began


def _one_camera(site: BenchSite, camera: str, folder: Path) -> BenchSite:
    """The images of one camera as a data set of its own, of links to the whole one's files."""
    train, val = (
        [sample for sample in site.data.split(split) if sample.image.name.startswith(camera)] for split in SPLITS
    )
    data = replace(site.data, train=train, val=val)
    place = folder / "site"
    for split in SPLITS:
        for sample in data.split(split):
            for kind, file in (("images", sample.image), ("labels", label_file_of(sample.image))):
                link = place / kind / split / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink() and file.exists():
                    link.symlink_to(file.resolve())
    names = ", ".join(site.named)
    (place / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [{names}]\n")
    return replace(site, name=camera, path=place / "data.yaml", data=data)


def before(trial: RealTrial) -> dict[str, Outcome]:
    return {BEFORE: Outcome(trial.environment.student, trial.environment.student)}


def ours(trial: RealTrial) -> dict[str, Outcome]:
    return {OURS: trial.cycle("ours")}


def fine_tuned(trial: RealTrial) -> dict[str, Outcome]:
    """Each rate, and what lies between it and release 1."""
    found = {}
    base = trial.environment.student.expand_classes(trial.site.labels)
    old = trial.environment.student.weights()
    for rate in RATES:
        student, took = trial.fine_tune(rate)
        change = compute(student.weights(), old, old)
        for share in SHARES:
            between = base.expand_classes(trial.site.labels)
            between.load_weights(apply(old, change, share))
            name = f"{TUNED}, rate {rate:g}" + (f", {share:g} of it" if share < 1 else "")
            found[name] = Outcome(between, between, between.weights().fp32_bytes, took)
    return found


def null_arm(trial: RealTrial) -> dict[str, Outcome]:
    student, took = trial.fine_tune(RATES[1], site=False)
    return {
        f"null arm: fine-tuning without the site's images, rate {RATES[1]:g}": Outcome(student, student, site_s=took)
    }


METHODS: dict[str, Callable[[RealTrial], dict[str, Outcome]]] = {
    "before": before,
    "ours": ours,
    "fine-tuned": fine_tuned,
    "null": null_arm,
}


def scenarios() -> list[RealScenario]:
    """Every pair of detectors at every site."""
    found = []
    for tutor, student in PAIRS[:1] if QUICK else PAIRS:
        plan = _plan(tutor, student)
        if plan is None:
            return []
        sets = Path(plan.presumed).parent.parent
        pair = f"{Path(student).stem} and {Path(tutor).stem}"
        sites = [("forklift", "")]
        if not QUICK:
            sites += [(name, "") for name in ("circuit_boards", "parking_cam", "traffic_cams")]
            sites += [("traffic_cams", camera) for camera in CAMERAS]
        for name, camera in sites:
            title = f"{camera or name}, {pair}"
            found.append(RealScenario(title, plan, str(sets / name / "data.yaml"), tuple(METHODS), camera))
    return found


def _plan(tutor: str, student: str) -> Plan | None:
    cycle: Json = {"form": "auto"} | ({"branch": {"epochs": 0.2}, "probe_steps": 2} if QUICK else {})
    size = 640 if GPU else 64 if QUICK else 224
    return real_plan(tutor, student, size, cycle=cycle, rename={"bike": "motorcycle"})


def columns(trial: RealTrial, outcome: Outcome) -> dict[str, Columns]:
    """By table."""
    site, known = trial.site, trial.environment.known
    old = [name for name in known.names if name in site.named]
    tables = {PRESUMED: evaluate_classes(outcome.presumed, trial.environment.presumed.val, site.labels, known.names)}
    ids = [outcome.presumed.labels.names.index(name) for name in site.new if name in outcome.presumed.labels.names]
    tables[PRESUMED]["false alarms"] = false_alarms(outcome.presumed, trial.environment.presumed.val, ids)
    for table, names in ((OLD, old), (NEW, list(site.new))):
        if names and any((site.data.counts("val").get(name, 0)) for name in names):
            tables[table] = evaluate_classes(outcome.site, site.data.val, site.labels, names)
    tables[COST] = {"MB up": outcome.bytes_up / 1e6, "seconds at the site": outcome.site_s}
    return tables


def measure(scenario: RealScenario, seed: int, folder: Path) -> Json:
    """Each method of one scenario and seed, a cell on disk each."""
    trial = RealTrial(scenario, seed, folder)
    tables: Json = {}
    commits = set()
    made_from = {"plan": describe_plan(scenario.plan), "seed": seed, "rates": RATES}
    for name in scenario.methods:
        cell = trial.folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.json"
        found = cached(cell, made_from | {"method": name}, partial(_cell, trial, name))
        commits.add(found["commit"])
        for form, by_table in found["forms"].items():
            for table, values in by_table.items():
                tables.setdefault(f"{scenario.name}: {table}", {})[form] = values
    return {"commits": sorted(commits), "tables": tables}


def _cell(trial: RealTrial, name: str) -> Json:
    return {"commit": COMMIT, "forms": {form: columns(trial, made) for form, made in METHODS[name](trial).items()}}


def targets_of(rows: list[Json]) -> list[Json]:
    """Of each scenario: what is forgotten, false alarms, shares of the best that fine-tuning reaches at any rate."""
    places = {(row["table"], row["form"]): row for row in rows}
    found = []
    for scenario in dict.fromkeys(row["table"].rpartition(": ")[0] for row in rows):

        def mean(table: str, form: str, column: str = "mAP50", scenario: str = scenario) -> float:
            return float(np.mean(places[f"{scenario}: {table}", form][column]["seeds"]))

        if (f"{scenario}: {PRESUMED}", OURS) not in places:
            continue
        forgotten = mean(PRESUMED, BEFORE) - mean(PRESUMED, OURS)
        found += [
            target(f"{scenario}: forgotten on presumed images, points", forgotten, "<", TOLERANCE),
            target(f"{scenario}: false alarms on 100 presumed images", mean(PRESUMED, OURS, "false alarms"), "<", 5),
        ]
        here = [form for table, form in places if table == f"{scenario}: {PRESUMED}"]
        tuned = [form for form in here if form.startswith(TUNED)]
        for table in (NEW, OLD):
            if (f"{scenario}: {table}", OURS) in places and tuned:
                best = max(mean(table, form) for form in tuned)
                share = 100 * mean(table, OURS) / max(best, 1e-9)
                found.append(target(f"{scenario}: {table}, percent of the bound", share, ">", 97))
        kept = [form for form in tuned if mean(PRESUMED, BEFORE) - mean(PRESUMED, form) <= max(forgotten, TOLERANCE)]
        table = NEW if (f"{scenario}: {NEW}", OURS) in places else OLD
        if kept:
            lead = mean(table, OURS) - max(mean(table, form) for form in kept)
            found.append(target(f"{scenario}: {table}, lead at equal forgetting, points", lead, ">", 0))
        if tuned:
            spent = mean(COST, OURS, "seconds at the site") / mean(COST, tuned[0], "seconds at the site")
            found.append(target(f"{scenario}: seconds at the site, times fine-tuning's", spent, "<", 2))
    return found


def measure_scenarios(chosen: Sequence[RealScenario], seed: int, folder: Path) -> Json:
    made = [measure(scenario, seed, folder) for scenario in chosen]
    tables = {table: forms for one in made for table, forms in one["tables"].items()}
    return {"commits": [one for scenario in made for one in scenario["commits"]], "tables": tables}


def picture(rows: list[Json], title: str, path: Path) -> None:
    """For each scenario mAP50 on presumed images, of old and of new classes."""
    tables = (PRESUMED, OLD, NEW)
    merged: dict[tuple[str, str], Json] = {}
    for row in rows:
        scenario, _, table = row["table"].rpartition(": ")
        if table in tables:
            merged.setdefault((scenario, row["form"]), {"table": scenario, "form": row["form"]})[table] = row["mAP50"]
    empty = {"mean": 0.0, "low": 0.0, "high": 0.0}
    drawn = [dict.fromkeys(tables, empty) | row for row in merged.values()]
    draw(drawn, {scenario: scenario for scenario, _ in merged}, tables, title, path)


def main() -> None:
    parser = parser_of(__doc__, (0,))
    parser.add_argument("--sites", metavar="WORD", default="", help="only measure where the name holds this word")
    asked = parser.parse_args()
    chosen = [scenario for scenario in scenarios() if asked.sites in scenario.name]
    if not chosen:
        raise SystemExit("there are no real weights and images: set DIREDI_BENCH_DATA, see bench/environment.py")
    if asked.sites:
        use_one_thread()
        for seed in asked.seeds:  # the cells are kept; a run without this option makes the tables of them
            measure_scenarios(chosen, seed, folder_of("real"))
        return
    report_results("real", asked.seeds, partial(measure_scenarios, chosen), targets_of, picture)


if __name__ == "__main__":
    main()
