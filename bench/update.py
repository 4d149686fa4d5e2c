"""Update cycles against their rivals: `make bench-update`.

Every method starts from the same release and learns for as many epochs, from the images that are where it learns; ours
has the shipped coreset beside the site's. On the built-in scenes there are three kinds of site: new light and a new
class (site-1), new light alone (site-2), a new class alone (site-3). With real weights and images (see
`bench/environment.py`) there are three more, from COCO's own models: forklifts, traffic cameras and a parking camera,
the last of which shows nothing that the manufacturer has ever seen.

Each method is judged on held-out images: the manufacturer's, and the site's by old and by new classes. "together"
is the upper bound, which privacy forbids. Seconds are the processor's, on one thread.

What is finished is kept in `runs/update` and not measured again: delete it after a change of the code. `QUICK=1` runs
through all of it with tiny models that learn next to nothing, into `bench/results/quick`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from baselines import alone, duet, federated, ultralytics_training
from environment import (
    FAST,
    GPU,
    QUICK,
    Environment,
    Plan,
    choose_plan,
    describe_plan,
    real_plan,
    run_job,
    use_one_thread,
)
from harness import folder_of, parser_of, report_results
from numpy.typing import NDArray
from report import COMMIT, Json, cached, draw, seconds, target

from diredi.data.dataset import Sample
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Predictor
from diredi.evaluation.detection import evaluate
from diredi.knowledge.jobs import apply_gap, extract, redistil
from diredi.knowledge.recipe import SECTIONS, Section
from diredi.labels import LabelSpace

Columns = dict[str, float]
Numbers = NDArray[np.float64]
OURS, BOUND, BEFORE = "DiReDi", "together (no privacy)", "release 1"
OLD, NEW = "old classes at the site", "new classes at the site"
TABLES = ("presumed", OLD, NEW)
DIRECT, REFINE, PAPER = "direct training", "Ultralytics, refine", "DiReDi, the paper's form"
GENTLE: Json = {"learning_rate": 1e-4, "batch_norm": "frozen", "train_only": ["neck", "head"]}
"""For detectors that were trained on COCO: 128 presumed images cannot hold what 118,000 taught."""


@dataclass(frozen=True)
class Scenario:
    """One kind of site in one kind of environment, and what it costs to use it."""

    name: str
    plan: Plan
    site: str
    methods: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """What a method ends with. The two predictors are one where cloud and site run the same."""

    presumed: Predictor
    site: Predictor
    bytes_up: int = 0
    site_s: float = 0.0
    cloud_s: float = 0.0


class Trial:
    """One scenario and one seed."""

    def __init__(self, scenario: Scenario, seed: int, folder: Path) -> None:
        self.environment = Environment(seed, scenario.plan)
        self.site = self.environment.site(scenario.site)
        self.folder = folder / scenario.name / f"seed-{seed}"
        recipe = self.environment.recipe()
        self.tutor, self.student = recipe.tutor, recipe.student

    @cached_property
    def fine_tuned(self) -> tuple[Detector, float]:
        return _timed(lambda: alone.fine_tune(self.environment, self.site, self.student))

    def cycle(self, name: str, **options: object) -> Outcome:
        """The jobs of a real cycle, with the options of a recipe; what is judged is the file that devices would run."""
        recipe, folder = self.environment.cycle(**options), self.folder / name
        taken = run_job(extract.main, folder / "extract", self.environment.extract_spec(self.site, recipe))
        common = {"presumed": str(self.environment.presumed_path), "recipe": recipe}
        gaps = {kind: [self._sent(gap)] if (gap := taken[f"{kind}_gap"]) else [] for kind in ("tutor", "student")}
        models = {kind: self.environment.made[kind]["weights"] for kind in ("tutor", "student")}
        scores = [taken["scores"]] if taken.get("scores") else []
        spec = {**common, "tutor": models["tutor"], "gaps": gaps["tutor"], "scores": scores}
        applied = run_job(apply_gap.main, folder / "apply", spec)
        spec = {**common, "tutor": applied["weights"], "student": models["student"], "student_gaps": gaps["student"]}
        made = run_job(redistil.main, folder / "redistil", spec)
        predictor = OnnxPredictor(Path(made["onnx"]["path"]))
        up = sum(taken[f"{kind}_gap"]["bytes"] for kind in gaps if taken[f"{kind}_gap"])
        return Outcome(predictor, predictor, up, taken["cpu_s"], applied["cpu_s"] + made["cpu_s"])

    def _sent(self, gap: Json) -> Json:
        return {"path": gap["path"], "codec": gap["codec"], "site": self.site.name, "images": len(self.site.data.train)}

    def columns(self, outcome: Outcome) -> dict[str, Columns]:
        """By table."""
        site, labels = self.site, self.site.labels
        old = [name for name in self.environment.known.names if name in site.named]
        tables = {
            "presumed": evaluate_classes(
                outcome.presumed, self.environment.presumed.val, labels, self.environment.known.names
            )
        }
        if old:
            tables[OLD] = evaluate_classes(outcome.site, site.data.val, labels, old)
        if site.new:
            tables[NEW] = evaluate_classes(outcome.site, site.data.val, labels, site.new)
        tables["cost"] = {
            "MB up": outcome.bytes_up / 1e6,
            "seconds at the site": outcome.site_s,
            "seconds in the cloud": outcome.cloud_s,
        }
        return tables


def evaluate_classes(
    predictor: Predictor, samples: Sequence[Sample], labels: LabelSpace, names: Sequence[str]
) -> Columns:
    """Percent, for the classes in `names` alone: boxes of others are neither asked for nor held against anybody."""
    chosen = LabelSpace(names=tuple(names))
    metrics = evaluate(predictor, [_only(sample, labels, chosen) for sample in samples], chosen)
    found = {"mAP50": metrics.map50, "mAP50-95": metrics.map50_95}
    found |= {"P": metrics.precision, "R": metrics.recall, "F1": metrics.f1}
    return {column: 100 * value for column, value in found.items()}


def _only(sample: Sample, labels: LabelSpace, chosen: LabelSpace) -> Sample:
    ids = [chosen.names.index(name) if name in chosen.names else -1 for name in labels.names]
    boxes = sample.boxes.copy().reshape(-1, 5)
    boxes[:, 0] = np.array(ids, np.float32)[boxes[:, 0].astype(int)]
    return replace(sample, boxes=boxes[boxes[:, 0] >= 0])


def before(trial: Trial) -> Outcome:
    return Outcome(trial.environment.student, trial.environment.student)


def ours(trial: Trial) -> Outcome:
    return trial.cycle("ours")


def paper(trial: Trial) -> Outcome:
    """Two reverse distillations, in which the student teaches all it knows, and nothing else. Statistics are
    re-estimated: otherwise the updated tutor is dead."""
    tutor = {**trial.environment.plan.cycle.get("tutor", {}), "teaches": "everything"}
    options = {"student_gap": False, "batch_norm": "re-estimate", "tutor": tutor}
    return trial.cycle("paper", reverse_distillations="two", **options)


def task_arithmetic(trial: Trial) -> Outcome:
    """The tutor's change on private data alone, and a student that the updated tutor teaches on presumed images."""
    tutor = {**trial.environment.plan.cycle.get("tutor", {}), "losses": {}}
    return trial.cycle("task-arithmetic", student_gap=False, coreset_images=0, tutor=tutor)


def direct(trial: Trial) -> Outcome:
    """The same student whatever the site: it has seen none."""
    environment = trial.environment
    file = environment.folder / "direct" / "student.safetensors"

    def made() -> Json:
        student, seconds = _timed(lambda: alone.direct(environment))
        return {"digest": student.save(file), "cpu_s": seconds}

    found = cached(file.with_suffix(".json"), {"plan": describe_plan(environment.plan)}, made)
    student = registry.load(file)
    return Outcome(student, student, cloud_s=found["cpu_s"])


def fine_tuned(trial: Trial) -> Outcome:
    """The site runs its own and the manufacturer learns nothing."""
    student, seconds = trial.fine_tuned
    return Outcome(student, student, site_s=seconds)


def replayed(trial: Trial) -> Outcome:
    """As many images as ours has at the site, and no teacher: what is left of ours without any distillation."""
    student, seconds = _timed(lambda: alone.fine_tune(trial.environment, trial.site, trial.student, replay=True))
    return Outcome(student, student, student.weights().fp32_bytes, site_s=seconds)


def two_heads(trial: Trial) -> Outcome:
    student, seconds = trial.fine_tuned
    merged = duet.merge(trial.environment, trial.site, student)
    return Outcome(merged, merged, student.weights().fp32_bytes, seconds)


def averaged(trial: Trial, sections: Sequence[Section] = SECTIONS) -> Outcome:
    made = federated.train_federated(trial.environment, trial.site, trial.student, sections)
    return Outcome(made.cloud, made.site, made.bytes_up, made.seconds[1], made.seconds[0])


def refined(trial: Trial) -> Outcome:
    student, seconds = _timed(
        lambda: ultralytics_training.train_refinement(trial.environment, trial.site, trial.student)
    )
    return Outcome(student, student, site_s=seconds)


def together(trial: Trial) -> Outcome:
    student, seconds = _timed(lambda: alone.train_together(trial.environment, trial.site, trial.tutor, trial.student))
    return Outcome(student, student, cloud_s=seconds)


METHODS: dict[str, Callable[[Trial], Outcome]] = {
    BEFORE: before,
    OURS: ours,
    PAPER: paper,
    "task arithmetic, one RD": task_arithmetic,
    DIRECT: direct,
    "fine-tuning at the site": fine_tuned,
    "fine-tuning with presumed images": replayed,
    "two heads (DuET)": two_heads,
    "FedAvg, 5 rounds": averaged,
    "FedAvg, backbone (UltraFlwr)": partial(averaged, sections=("backbone",)),
    "FedAvg, neck (UltraFlwr)": partial(averaged, sections=("neck",)),
    "FedAvg, head (UltraFlwr)": partial(averaged, sections=("head",)),
    REFINE: refined,
    BOUND: together,
}
PARTIAL = tuple(name for name in METHODS if "UltraFlwr" in name)


def _timed(make: Callable[[], Detector]) -> tuple[Detector, float]:
    began = seconds()
    return make(), seconds() - began


def scenarios() -> list[Scenario]:
    """What there is to measure on, the cheap first."""
    every = tuple(METHODS)
    whole = tuple(name for name in METHODS if name not in (*PARTIAL, PAPER))
    base = choose_plan()
    found = [
        Scenario("site-1, new light and class", base, "scenes:site-1", every),
        Scenario("site-2, new light", base, "scenes:site-2", tuple(name for name in whole if name != REFINE)),
        Scenario("site-3, new class", base, "scenes:site-3", whole),
    ]
    return found + _real_scenarios(whole)


def _real_scenarios(methods: Sequence[str]) -> list[Scenario]:
    cycle = {"tutor": {**GENTLE, **FAST, "epochs": 4}, "student": {**GENTLE, **FAST, "epochs": 5}}
    cycle["redistil"] = {**GENTLE, **FAST}
    plan = real_plan(
        "yolov8s.pt",
        "yolov8n.pt",
        640 if GPU else 192,
        cycle=cycle,
        bootstrap={"coreset_images": 128},
        rename={"bike": "motorcycle"},
    )
    if plan is None or QUICK:
        return []
    sets = Path(plan.presumed).parent.parent
    kinds = {"forklift": methods, "parking_cam": methods, "traffic_cams": [m for m in methods if m != REFINE]}
    # Direct training from nothing on 128 images is no rival of models that have seen 118,000.
    return [
        Scenario(name, plan, str(sets / name / "data.yaml"), tuple(m for m in chosen if m != DIRECT))
        for name, chosen in kinds.items()
    ]


def measure(scenario: Scenario, seed: int, folder: Path) -> Json:
    """Each method of one scenario and seed, a cell on disk each."""
    trial = Trial(scenario, seed, folder)
    tables: Json = {}
    commits = set()
    for name in scenario.methods:
        cell = trial.folder / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
        found = cached(
            cell, {"method": name, "plan": describe_plan(scenario.plan), "seed": seed}, partial(_cell, trial, name)
        )
        commits.add(found["commit"])
        for table, columns in found["tables"].items():
            tables.setdefault(f"{scenario.name}: {table}", {})[name] = columns
    return {"commits": sorted(commits), "tables": tables}


def _cell(trial: Trial, name: str) -> Json:
    return {"commit": COMMIT, "tables": trial.columns(METHODS[name](trial))}


def targets_of(rows: list[Json]) -> list[Json]:
    """Each is judged from the rows alone, for the site with new light and a new class unless it says otherwise."""
    places = {(row["table"], row["form"]): row for row in rows}
    grounds_seen = list(dict.fromkeys(row["table"].split(": ")[0] for row in rows))

    def seeds(scenario: str, table: str, form: str, column: str = "mAP50") -> Numbers:
        return np.array(places[f"{scenario}: {table}", form][column]["seeds"])

    def overall(scenario: str, form: str) -> Numbers:
        """Mean of what counts: presumed, old and new classes."""
        columns = [seeds(scenario, t, form) for t in TABLES if (f"{scenario}: {t}", form) in places]
        return np.asarray(np.mean(columns, axis=0))

    def lead(scenario: str) -> tuple[str, float]:
        """The rival that comes closest: how far ours is ahead of it, less the spread of that over the seeds."""
        leads = {
            form: (d := overall(scenario, OURS) - overall(scenario, form)).mean() - d.std(ddof=min(1, len(d) - 1))
            for table, form in places
            if table == f"{scenario}: presumed" and form not in (OURS, BOUND, BEFORE)
        }
        closest = min(leads, key=lambda form: leads[form])
        return closest, leads[closest]

    first = grounds_seen[0]
    share = {t: 100 * seeds(first, t, OURS).mean() / seeds(first, t, BOUND).mean() for t in (OLD, NEW)}
    forgotten = (seeds(first, "presumed", BEFORE) - seeds(first, "presumed", OURS)).mean()
    targets = [
        target("AP50 of the new class, percent of the upper bound's", share[NEW], ">", 90),
        target("mAP50 of the old classes, percent of the upper bound's", share[OLD], ">", 95),
        target("forgetting on presumed data, points of mAP50", forgotten, "<", 0.5),
    ]
    for scenario in grounds_seen:
        closest, ahead = lead(scenario)
        said_so = f"{scenario}: lead over the closest rival that keeps privacy ({closest}), less its spread, points"
        targets.append(target(said_so, ahead, ">", 0))
    return targets


def measure_scenarios(chosen: Sequence[Scenario], seed: int, folder: Path) -> Json:
    made = [measure(scenario, seed, folder) for scenario in chosen]
    tables = {table: forms for one in made for table, forms in one["tables"].items()}
    return {"commits": [one for scenario in made for one in scenario["commits"]], "tables": tables}


def main() -> None:
    parser = parser_of(__doc__, (0, 1))
    parser.add_argument("--grounds", metavar="WORD", default="", help="only measure where the name holds this word")
    parser.add_argument("--methods", metavar="WORD", default="", help="only measure methods with this word")
    asked = parser.parse_args()
    chosen = [
        replace(scenario, methods=[name for name in scenario.methods if asked.methods in name])
        for scenario in scenarios()
        if asked.grounds in scenario.name
    ]
    measure = partial(measure_scenarios, chosen)
    if not (asked.grounds or asked.methods):
        report_results("update", asked.seeds, measure, targets_of, picture)
        return
    use_one_thread()
    for seed in asked.seeds:  # the cells are kept; a run without these options makes the tables of them
        measure(seed, folder_of("update"))


def picture(rows: list[Json], title: str, path: Path) -> None:
    """For each scenario the mAP50 of its three tables as columns."""
    merged: dict[tuple[str, str], Json] = {}
    for row in rows:
        scenario, table = row["table"].split(": ")
        if table in TABLES:
            merged.setdefault((scenario, row["form"]), {"table": scenario, "form": row["form"]})[table] = row["mAP50"]
    empty = {"mean": 0.0, "low": 0.0, "high": 0.0}
    drawn = [dict.fromkeys(TABLES, empty) | row for row in merged.values()]
    draw(drawn, {scenario: scenario for scenario, _ in merged}, TABLES, title, path)


if __name__ == "__main__":
    main()
