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

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from environment import FAST, GPU, QUICK, choose_plan, describe_plan, real_plan, use_one_thread
from harness import folder_of, parser_of, report_results
from methods import (
    BEFORE,
    BOUND,
    COST,
    DIRECT,
    METHODS,
    NEW,
    OLD,
    OURS,
    PAPER,
    PRESUMED,
    REFINE,
    Columns,
    Forms,
    Outcome,
    Scenario,
    Trial,
    measure_cells,
)
from numpy.typing import NDArray
from report import Json, draw, target

from diredi.data.dataset import Sample
from diredi.detectors.predictor import Predictor
from diredi.evaluation.detection import evaluate
from diredi.labels import LabelSpace

Numbers = NDArray[np.float64]
TABLES = (PRESUMED, OLD, NEW)
PARTIAL = tuple(name for name in METHODS if "UltraFlwr" in name)
GENTLE: Json = {"learning_rate": 1e-4, "batch_norm": "frozen", "train_only": ["neck", "head"]}
"""For detectors that were trained on COCO: 128 presumed images cannot hold what 118,000 taught."""


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


def columns(trial: Trial, outcome: Outcome) -> dict[str, Columns]:
    """By table."""
    site, known = trial.site, trial.environment.known
    old = [name for name in known.names if name in site.named]
    tables = {PRESUMED: evaluate_classes(outcome.presumed, trial.environment.presumed.val, site.labels, known.names)}
    if old:
        tables[OLD] = evaluate_classes(outcome.site, site.data.val, site.labels, old)
    if site.new:
        tables[NEW] = evaluate_classes(outcome.site, site.data.val, site.labels, site.new)
    tables[COST] = {
        "MB up": outcome.bytes_up / 1e6,
        "seconds at the site": outcome.site_s,
        "seconds in the cloud": outcome.cloud_s,
    }
    return tables


def measure(scenario: Scenario, seed: int, folder: Path) -> Json:
    """Each method of one scenario and seed, a cell on disk each."""
    trial = Trial(scenario, seed, folder)

    def cell(name: str, _: Path) -> Forms:
        return {name: columns(trial, METHODS[name](trial))}

    made_from = {"plan": describe_plan(scenario.plan), "seed": seed}
    cells = {name: partial(cell, name) for name in scenario.methods}
    return measure_cells(scenario.name, trial.folder, made_from, cells)


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
            if table == f"{scenario}: {PRESUMED}" and form not in (OURS, BOUND, BEFORE)
        }
        closest = min(leads, key=lambda form: leads[form])
        return closest, leads[closest]

    first = grounds_seen[0]
    share = {t: 100 * seeds(first, t, OURS).mean() / seeds(first, t, BOUND).mean() for t in (OLD, NEW)}
    forgotten = (seeds(first, PRESUMED, BEFORE) - seeds(first, PRESUMED, OURS)).mean()
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
