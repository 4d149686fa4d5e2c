"""The default cycle on real detectors and real images, beside its rivals: `make bench-real`.

Detectors that COCO taught, coco128 as presumed data, and sites with real cameras (see `bench/environment.py` for where
they lie). The cycle is the default one; and once more without a student gap, where the updated tutor alone teaches what
is new. Beside it stand the rivals of `bench/methods.py`, with the same images and as many steps, each at three learning
rates; "together" is a bound, which privacy forbids. A null arm learns without the site's images, which shows what such
a training costs by itself.

What a training has changed need not be taken whole. So each method is judged at its end and on the way there from
release 1 (`SHARES`), on held-out images: the manufacturer's, the site's by old and by new classes (those with ten boxes
there), and how often new classes are found on 100 of the manufacturer's images, which show none. The trade of a method
is the best that it learns while it forgets no more than x, for x from 0 to 10 points; its column "area" is the mean.

Ours is better than a rival at its best point where the bootstrap over the held-out images and each seed say so, it
forgets at most 1 point, and it finds new classes at most 5 times in 100 of the manufacturer's images. A rival is better
where both say so and it finds them no more often than that, or than ours does.

What is finished is kept in `runs/real` and not measured again: delete it after a change of the code. `QUICK=1` takes
one site, one pair, a few steps and not every rival, into `bench/results/quick`. `--image-size` and `--epochs` make a
reduced run, which says so in its JSON; `--tables` trains nothing and makes tables of what is there, whatever code made
it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from baselines import duet
from environment import GPU, QUICK, BenchSite, Plan, describe_plan, real_plan
from ground_covered import ground_covered
from harness import folder_of, measure_concurrently, parser_of, write_results
from methods import (
    ARITHMETIC,
    BEFORE,
    BOUND,
    COST,
    DUET,
    HEAD,
    HEAD_REPLAYED,
    METHODS,
    NEW,
    OLD,
    OURS,
    PAPER,
    PRESUMED,
    REFINE,
    REPLAYED,
    TUNED,
    Columns,
    Forms,
    Outcome,
    Scenario,
    Trial,
    measure_cells,
)
from numpy.typing import NDArray
from report import Json, rows_of, target
from trade_picture import draw_trades

from diredi.data.dataset import SPLITS, Sample
from diredi.data.yolo import label_file_of
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.predictor import Predictor
from diredi.evaluation.bootstrap import ap50, draw_images, interval
from diredi.evaluation.detection import Matches, evaluate_with_matches
from diredi.evaluation.false_alarms import RUNNING_CONFIDENCE
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.gap import apply, compute
from diredi.knowledge.recipe import CycleRecipe

NULL = "null arm"
"""Fine-tuning with presumed images, without the site's."""
NO_GAP = "DiReDi, no student gap"
OWN = (BEFORE, OURS, NO_GAP)
"""What has no learning rate to choose."""
TRADE, LEAD = "trade", "DiReDi less its rival, with 95 percent of the resampled images"
RATES = (3e-4,) if QUICK else (3e-5, 1e-4, 3e-4)
HEAD_RATES = (3e-4,) if QUICK else (1e-4, 3e-4, 1e-3)
SHARES = (0.5, 1.0) if QUICK else (0.25, 0.5, 0.75, 1.0)
PAIRS = (("yolov8s.pt", "yolov8n.pt"), ("yolo26m.pt", "yolo26n.pt"))
CAMERAS = ("roundabout", "nighthighway", "boulevard", "motorway", "curve", "avenue")
IMAGE_SIZE = 640 if GPU else 64 if QUICK else 224
EPOCHS = CycleRecipe().branch.epochs
TOLERANCE = 1.0
"""Points of mAP50 on presumed images that may be forgotten."""
ALARMS = 5.0
"""How often new classes may be found on 100 presumed images."""
BOXES = 10
"""A class with fewer on the site's held-out images is not judged: with one box its AP is 0 or 100."""
TAUGHT = 60.0
"""Percent of the gain of a new class that the updated tutor is to teach without a student gap."""
BETTER, UNDECIDED, WORSE = "DiReDi better", "nobody can say", "rival better"

_FEDERATED = [name for name in METHODS if name.startswith("FedAvg")]
CHEAP_FIRST = (TUNED, REPLAYED, HEAD, HEAD_REPLAYED, DUET, REFINE, *_FEDERATED, ARITHMETIC, PAPER, BOUND)
if QUICK:
    CHEAP_FIRST = tuple(name for name in CHEAP_FIRST if name not in (*_FEDERATED[1:], ARITHMETIC, PAPER))
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class RealScenario(Scenario):
    """A pair of detectors and a site; of traffic_cams maybe one camera alone."""

    camera: str = ""
    epochs: float = EPOCHS


class RealTrial(Trial):
    """One scenario and seed. `at` gives the same at another learning rate of the rivals."""

    def __init__(self, scenario: RealScenario, seed: int, folder: Path) -> None:
        super().__init__(scenario, seed, folder)
        if scenario.camera:
            self.site = _one_camera(self.site, scenario.camera, self.folder)
        self.rate = 0.0
        images, batch = len(self.site.data.train) + len(self.environment.coreset), self.student.batch
        self.steps = max(round(scenario.epochs * max(images // batch, 1)), 1)
        self._rates: dict[float, RealTrial] = {}

    def at(self, rate: float) -> RealTrial:
        if rate not in self._rates:
            made = copy.copy(self)
            made.rate = rate
            # Whoever counts in epochs counts those of the site's images.
            epochs = self.steps * self.student.batch / len(self.site.data.train)
            options = {"epochs": epochs, **made.learning, "losses": {}}
            made.student = self.student.model_copy(update=options)
            made.tutor = self.tutor.model_copy(update=options)
            self._rates[rate] = made
        return self._rates[rate]

    @property
    def learning(self) -> Json:
        """How every rival learns, in the arithmetic of ours."""
        return {"learning_rate": self.rate, "steps": self.steps, "batch_norm": "frozen", "precision": "auto"}

    def rival_cycle(self, name: str, tutor: Json, **options: object) -> Outcome:
        options |= {"form": "weights", "redistil": self.learning}
        return self.cycle(f"{name}-{self.rate:g}", tutor={**self.learning, **tutor}, **options)

    def judge(self, predictor: Predictor, samples: Sequence[Sample]) -> tuple[DetectionMetrics, Matches]:
        return evaluate_with_matches(predictor, samples, self.site.labels)

    @property
    def classes(self) -> dict[str, list[str]]:
        """The classes of each table that its images show; at the site often enough."""
        shown, known = self.site.data.counts("val"), self.environment.known.names
        presumed = self.environment.presumed.counts("val")
        return {
            PRESUMED: [name for name in known if presumed.get(name, 0)],
            OLD: [name for name in known if name in self.site.named and shown.get(name, 0) >= BOXES],
            NEW: [name for name in self.site.new if shown.get(name, 0) >= BOXES],
        }


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


def null_arm(trial: RealTrial) -> Outcome:
    nothing = replace(trial.site, data=replace(trial.site.data, train=[]))
    other = copy.copy(trial)
    other.site = nothing
    return METHODS[REPLAYED](other)


def without_student_gap(trial: RealTrial) -> Outcome:
    """What the updated tutor of ours teaches in the cloud. The site's seconds are those of ours, whose student learns
    there, too."""
    return trial.cloud_part("no-student-gap", trial.site_part("ours"), student_gap=False)


def on_the_way(trial: RealTrial, name: str, made: Outcome) -> Iterator[tuple[float, Outcome]]:
    """What lies between release 1 and the end of a method, weight by weight, and the end itself."""
    for share in SHARES[:-1]:
        if name == DUET:
            merged = duet.merge(trial.environment, trial.site, trial.fine_tuned[0], share)
            yield share, replace(made, presumed=merged, site=merged)
        elif name != REFINE:  # whose additions are no weights of release 1
            if made.network:
                cloud = site = registry.load(made.network)
            else:
                cloud, site = cast(Detector, made.presumed), cast(Detector, made.site)
            there = _between(trial, cloud, share)
            yield share, replace(made, presumed=there, site=there if site is cloud else _between(trial, site, share))
    if name == DUET:
        whole = duet.merge(trial.environment, trial.site, trial.fine_tuned[0], 1.0)
        made = replace(made, presumed=whole, site=whole)
    yield 1.0, made


def _between(trial: RealTrial, end: Detector, share: float) -> Detector:
    old = trial.environment.student.weights()
    between = trial.environment.student.expand_classes(end.spec.labels)
    between.load_weights(apply(old, compute(end.weights(), old, old), share))
    return between


def cells_of(trial: RealTrial, asked: Sequence[str]) -> dict[str, partial[Forms]]:
    """By name: what is measured together, the cheap first."""
    cells = {name: partial(cell, trial, name, None) for name in OWN}
    middle = RATES[len(RATES) // 2]
    rated = [(NULL, middle)]
    rated += [(name, rate) for name in CHEAP_FIRST for rate in (HEAD_RATES if "head" in name else RATES)]
    for name, rate in rated:
        if name != REFINE or trial.site.new:
            cells[f"{name}, rate {rate:g}"] = partial(cell, trial, name, rate)
    return {key: make for key, make in cells.items() if key in (BEFORE, OURS) or any(word in key for word in asked)}


def cell(trial: RealTrial, name: str, rate: float | None, path: Path) -> Forms:
    """The tables of each point of a method at a rate; beside them, the matches of each."""
    forms: Forms = {}
    matches: dict[str, Any] = {}
    for form, outcome in _points(trial, name, rate):
        forms[form], found = columns(trial, outcome)
        for where, one in found.items():
            matches |= {f"{form}|{where}|{field}": array for field, array in asdict(one).items()}
    np.savez_compressed(path.with_suffix(".npz"), **matches)
    return forms


def _points(trial: RealTrial, name: str, rate: float | None) -> Iterator[tuple[str, Outcome]]:
    if rate is None:
        yield name, without_student_gap(trial) if name == NO_GAP else METHODS[name](trial)
        return
    tried = trial.at(rate)
    if name == NULL:
        yield f"{name}, rate {rate:g}", null_arm(tried)
        return
    for share, outcome in on_the_way(tried, name, METHODS[name](tried)):
        yield f"{name}, rate {rate:g}" + (f", {share:g} of it" if share < 1 else ""), outcome


def columns(trial: RealTrial, outcome: Outcome) -> tuple[dict[str, Columns], dict[str, Matches]]:
    """The tables that no choice of a site's classes changes; and the matches on both kinds of images."""
    judged = {
        PRESUMED: trial.judge(outcome.presumed, trial.environment.presumed.val),
        "site": trial.judge(outcome.site, trial.site.data.val),
    }
    if outcome.site is not outcome.presumed:
        judged["presumed, the site's own"] = trial.judge(outcome.site, trial.environment.presumed.val)
    metrics, matches = judged[PRESUMED]
    shown = [metrics.per_class[name] for name in trial.classes[PRESUMED]]
    new = trial.site.labels.ids_of(trial.site.new)
    alarms = np.isin(matches.classes, list(new)) & (matches.scores >= RUNNING_CONFIDENCE)
    tables: dict[str, Columns] = {
        PRESUMED: {
            "mAP50": 100 * float(np.mean([one.ap50 for one in shown])),
            "mAP50-95": 100 * float(np.mean([one.ap50_95 for one in shown])),
            "false alarms": 100 * float(alarms.sum()) / len(matches.boxes),
        },
        COST: {
            "MB up": outcome.bytes_up / 1e6,
            "seconds at the site": outcome.site_s,
            "seconds in the cloud": outcome.cloud_s,
        },
    }
    return tables, {where: one for where, (_, one) in judged.items()}


def measure(asked: Sequence[str], kept: bool, work: tuple[RealScenario, int], folder: Path) -> Json:
    """One scenario and seed: tables, and where the matches lie that those of the site are made of."""
    scenario, seed = work
    trial = RealTrial(scenario, seed, folder)
    made_from = {"plan": describe_plan(scenario.plan), "seed": seed, "steps": trial.steps, "shares": SHARES}
    ids = {table: list(trial.site.labels.ids_of(names)) for table, names in trial.classes.items() if names}
    found = measure_cells(scenario.name, trial.folder, made_from, cells_of(trial, asked), kept=kept)
    tables: Json = {}
    for table in (PRESUMED, *(table for table in ids if table != PRESUMED), COST):
        name = f"{scenario.name}: {table}"
        if table in (PRESUMED, COST):
            tables[name] = found["tables"].get(name, {})
        else:
            tables[name] = {
                form: {"mAP50": _at_the_site(file, form, ids[table])} for form, file in found["files"].items()
            }
    held_out = len(trial.site.data.val)
    return {**found, "tables": tables, "scenario": scenario.name, "held out": held_out, "seed": seed, "classes": ids}


def _at_the_site(cell: str, form: str, classes: Sequence[int]) -> float:
    matches = matches_of(Path(cell), form, "site")
    return float(ap50(matches, classes, np.ones((1, len(matches.boxes)), np.int64))[0])


def matches_of(cell: Path, form: str, where: str) -> Matches:
    with np.load(cell.with_suffix(".npz")) as saved:
        return Matches(**{field: saved[f"{form}|{where}|{field}"] for field in Matches.__dataclass_fields__})


class Comparison:
    """Ours beside its rivals in one scenario, from the cells of each seed."""

    def __init__(self, scenario: str, seeds: Sequence[Json], rows: Sequence[Json]) -> None:
        self._seeds, self.classes = seeds, seeds[0]["classes"]
        self.scenario = scenario
        mine = [row for row in rows if row["table"].rpartition(": ")[0] == scenario]
        self.tables = {
            table: {row["form"]: row for row in mine if row["table"] == f"{scenario}: {table}"}
            for table in (PRESUMED, OLD, NEW, COST)
        }
        self.learned = NEW if self.tables[NEW] else OLD
        self._drawn: dict[int, NDArray[np.int64]] = {}
        self._found: dict[tuple[str, str], Numbers] = {}

    @property
    def forms(self) -> list[str]:
        return list(self.tables[PRESUMED])

    @property
    def rivals(self) -> dict[str, list[str]]:
        """The points of each method that has been trained, by its name."""
        found: dict[str, list[str]] = {}
        for form in self.forms:
            if ", rate " in form and not form.startswith(NULL):
                found.setdefault(form.rpartition(", rate ")[0], []).append(form)
        return found

    def mean(self, table: str, form: str, column: str = "mAP50") -> float:
        return float(self.tables[table][form][column]["mean"])

    def forgotten(self, form: str) -> float:
        return self.mean(PRESUMED, BEFORE) - self.mean(PRESUMED, form)

    def best(self, points: Iterable[str]) -> str:
        """The point that has learned most of those that forget no more than ours, or than may be forgotten."""
        allowed = max(self.forgotten(OURS), TOLERANCE)
        kept = [form for form in points if self.forgotten(form) <= allowed]
        return max([*kept, BEFORE], key=lambda form: self.mean(self.learned, form))

    def area(self, points: Iterable[str]) -> float:
        return ground_covered((self.forgotten(form), self.mean(self.learned, form)) for form in (*points, BEFORE))

    def trade(self) -> list[Json]:
        """A row for each method: the ground that it covers, and its best point."""
        methods = {name: [name] for name in OWN if name in self.forms} | self.rivals
        found = []
        for name, points in methods.items():
            chosen = name if name in OWN else self.best(points)
            figures = {
                "area": self.area(points),
                self.learned: self.mean(self.learned, chosen),
                "forgotten": self.forgotten(chosen),
                "false alarms": self.mean(PRESUMED, chosen, "false alarms"),
            }
            row: Json = {column: _figure(value) for column, value in figures.items()}
            row["point"] = chosen.removeprefix(f"{name}, ")
            found.append({"table": f"{self.scenario}: {TRADE}", "form": name, **row})
        return found

    def leads(self) -> list[Json]:
        """A row for each rival at its best point: how far ours is ahead, and within which bounds."""
        found = []
        for name, points in self.rivals.items():
            chosen = self.best(points)
            shown = [table for table in (NEW, OLD, PRESUMED) if self.tables[table]]
            leads = {table: self._difference(table, chosen) for table in shown}
            verdict = self._verdict(leads[self.learned], chosen)
            found.append({"table": f"{self.scenario}: {LEAD}", "form": name, **leads, "verdict": verdict})
        return found

    def _verdict(self, lead: Json, rival: str) -> str:
        mine, theirs = (self.mean(PRESUMED, form, "false alarms") for form in (OURS, rival))
        harmless = self.forgotten(OURS) <= TOLERANCE and mine <= ALARMS
        if harmless and lead["low"] > 0 and min(lead["seeds"]) > 0:
            return BETTER
        if theirs <= max(mine, ALARMS) and lead["high"] < 0 and max(lead["seeds"]) < 0:
            return WORSE
        return UNDECIDED

    def _difference(self, table: str, form: str) -> Json:
        ours, theirs = self._resampled(table, OURS), self._resampled(table, form)
        low, high = interval((ours - theirs).mean(0))
        by_seed = [float(one) for one in (ours - theirs)[:, 0]]
        return {"mean": float(np.mean(by_seed)), "low": low, "high": high, "seeds": by_seed}

    def _resampled(self, table: str, form: str) -> Numbers:
        """Percent, seeds x resamples; the same images of every form and seed."""
        if (table, form) not in self._found:
            where = PRESUMED if table == PRESUMED else "site"
            found = []
            for seed in self._seeds:
                matches = matches_of(Path(seed["files"][form]), form, where)
                count = len(matches.boxes)
                drawn = self._drawn.setdefault(count, draw_images(count, seed=count))
                found.append(ap50(matches, self.classes[table], drawn))
            self._found[table, form] = np.stack(found)
        return self._found[table, form]


def _figure(value: float) -> Json:
    return {"mean": value, "low": value, "high": value, "seeds": [value]}


def compare(made: Sequence[Json]) -> tuple[list[Json], list[Json]]:
    """Rows and targets of all scenarios, of what every seed has."""
    rows: list[Json] = []
    targets: list[Json] = []
    verdicts: dict[str, set[str]] = {}
    for scenario in dict.fromkeys(one["scenario"] for one in made):
        seeds = [one for one in made if one["scenario"] == scenario]
        found = rows_of([_shared(one["tables"], [other["tables"] for other in seeds]) for one in seeds])
        rows += found
        one = Comparison(scenario, seeds, found)
        if not {OURS, BEFORE} <= set(one.tables[one.learned]):
            continue
        leads = one.leads()
        rows += one.trade() + leads
        targets += targets_of(one)
        verdicts[scenario] = {row["verdict"] for row in leads if row["form"] != BOUND}
    ahead = sum(found == {BETTER} for found in verdicts.values())
    behind = sum(WORSE in found for found in verdicts.values())
    targets += [
        target(
            f"scenarios of {len(verdicts)} where ours is better than every private rival",
            ahead,
            ">",
            5 / 6 * len(verdicts) - 0.5,
        ),
        target("scenarios where a private rival is better than ours", behind, "<", 0.5),
    ]
    return rows, targets


def _shared(tables: Json, all_tables: Sequence[Json]) -> Json:
    """The forms that all seeds have."""
    return {
        table: {
            form: found for form, found in forms.items() if all(form in other.get(table, {}) for other in all_tables)
        }
        for table, forms in tables.items()
    }


def targets_of(one: Comparison) -> list[Json]:
    """Of a scenario: what is forgotten, false alarms, shares of the best that fine-tuning reaches at any rate."""
    name = one.scenario
    found = [
        target(f"{name}: forgotten on presumed images, points", one.forgotten(OURS), "<", TOLERANCE),
        target(f"{name}: false alarms on 100 presumed images", one.mean(PRESUMED, OURS, "false alarms"), "<", ALARMS),
    ]
    bounds = [form for rival in (REPLAYED, BOUND) for form in one.rivals.get(rival, [])]
    for table in (NEW, OLD):
        if one.tables[table] and bounds:
            best = max(one.mean(table, form) for form in bounds)
            share = 100 * one.mean(table, OURS) / max(best, 1e-9)
            found.append(target(f"{name}: {table}, percent of the bound", share, ">", 97))
    if NO_GAP in one.tables[NEW]:
        before, taught, whole = (one.mean(NEW, form) for form in (BEFORE, NO_GAP, OURS))
        share = 100 * (taught - before) / max(whole - before, 1e-9)
        what = "share of the gain of the new class with the student gap, percent"
        found.append(target(f"{name}: {NO_GAP}, {what}", share, ">", TAUGHT))
    private = [form for rival, forms in one.rivals.items() if rival != BOUND for form in forms]
    if private:
        lead = one.mean(one.learned, OURS) - one.mean(one.learned, one.best(private))
        found.append(target(f"{name}: {one.learned}, lead at equal forgetting, points", lead, ">", 0))
        found.append(target(f"{name}: area, lead, points", one.area([OURS]) - one.area(private), ">", 0))
    if tuned := one.rivals.get(REPLAYED):
        spent = one.mean(COST, OURS, "seconds at the site") / one.mean(COST, tuned[-1], "seconds at the site")
        found.append(target(f"{name}: seconds at the site, times fine-tuning's", spent, "<", 2))
    return found


def scenarios(image_size: int, epochs: float) -> list[RealScenario]:
    """Every pair of detectors at every site."""
    found = []
    for tutor, student in PAIRS[:1] if QUICK else PAIRS:
        plan = _plan(tutor, student, image_size, epochs)
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
            found.append(RealScenario(title, plan, str(sets / name / "data.yaml"), tuple(METHODS), camera, epochs))
    return found


def _plan(tutor: str, student: str, image_size: int, epochs: float) -> Plan | None:
    cycle: Json = {"form": "auto"}
    if QUICK:
        cycle |= {"probe_steps": 2, "redistil": {"steps": 4}, "redistil_branch": {"steps": 4}}
    if epochs != EPOCHS:
        cycle |= {part: {"epochs": epochs} for part in ("branch", "tutor", "student")}
    return real_plan(tutor, student, image_size, cycle=cycle, rename={"bike": "motorcycle"})


def picture(plan: str, rows: list[Json], seeds: str, path: Path) -> None:
    """For each scenario what each method learns against what it forgets."""
    figure = draw_trades(rows, f"{plan}, {seeds}")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = parser_of(__doc__, (0,))
    parser.add_argument("--sites", metavar="WORD", nargs="+", default=[""], help="only where the name holds a word")
    parser.add_argument("--methods", metavar="WORD", nargs="+", default=[""], help="only methods that hold a word")
    parser.add_argument("--image-size", metavar="PX", type=int, default=IMAGE_SIZE, help=f"default: {IMAGE_SIZE}")
    parser.add_argument("--epochs", metavar="N", type=float, default=0.2 if QUICK else EPOCHS, help="of every training")
    parser.add_argument("--tables", action="store_true", help="train nothing: tables of what is there")
    parser.add_argument("--write", action="store_true", help="also write a reduced run to bench/results")
    asked = parser.parse_args()
    chosen = [
        scenario
        for scenario in scenarios(asked.image_size, asked.epochs)
        if any(word in scenario.name for word in asked.sites)
    ]
    if not chosen:
        raise SystemExit("there are no real weights and images: set DIREDI_BENCH_DATA, see bench/environment.py")
    folder = folder_of("real") / f"{asked.image_size}px-{asked.epochs:g}-epochs"
    work = [(scenario, seed) for seed in asked.seeds for scenario in chosen]
    made = measure_concurrently(partial(measure, asked.methods, asked.tables), work, folder)
    rows, targets = compare(made)
    if not rows:
        raise SystemExit(f"nothing to make tables of: no method in {folder} has all of these seeds")
    reduced = asked.epochs != EPOCHS or len(chosen) < len(scenarios(asked.image_size, asked.epochs))
    run = {
        "image size": asked.image_size,
        "epochs": asked.epochs,
        "held-out images": {one["scenario"]: one["held out"] for one in made},
        "seeds": asked.seeds,
        "reduced": reduced,
        "intervals": LEAD,
    }
    commits = [commit for one in made for commit in one["commits"]]
    drawn = partial(picture, f"{asked.image_size} pixels, {asked.epochs:g} epochs")
    write_results("real", asked.seeds, rows, targets, commits, drawn, whole=asked.write or not reduced, more=run)


if __name__ == "__main__":
    main()
