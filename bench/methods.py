"""Every method that the benchmarks of update cycles compare, ours and its rivals, one function each.

A method starts from the same release and learns from the images that are where it learns; ours has the shipped coreset
beside the site's. "together" is the upper bound, which privacy forbids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from baselines import alone, duet, federated, ultralytics_training
from environment import Environment, Plan, describe_plan, run_job
from report import COMMIT, Json, cached, read_cached, seconds

from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Predictor
from diredi.knowledge.jobs import apply_gap, extract, redistil
from diredi.knowledge.recipe import SECTIONS, Section

Columns = dict[str, float]
OURS, BOUND, BEFORE = "DiReDi", "together (no privacy)", "release 1"
PRESUMED, OLD, NEW, COST = "presumed", "old classes at the site", "new classes at the site", "cost"
DIRECT, REFINE, PAPER = "direct training", "Ultralytics, refine", "DiReDi, the paper's form"
TUNED, REPLAYED = "fine-tuning at the site", "fine-tuning with presumed images"
HEAD, HEAD_REPLAYED = "fine-tuning of the head at the site", "fine-tuning of the head with presumed images"
DUET, ARITHMETIC = "two heads (DuET)", "task arithmetic, one RD"


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
    network: Path | None = None
    """The weights of an exported predictor."""


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
        return self.cloud_part(name, self.site_part(name, **options), **options)

    def site_part(self, name: str, **options: object) -> Json:
        spec = self.environment.extract_spec(self.site, self.environment.cycle(**options))
        return run_job(extract.main, self.folder / name / "extract", spec)

    def cloud_part(self, name: str, taken: Json, **options: object) -> Outcome:
        recipe, folder = self.environment.cycle(**options), self.folder / name
        if not recipe["student_gap"]:
            taken = {**taken, "student_gap": None}
        common = {"presumed": str(self.environment.presumed_path), "recipe": recipe}
        gaps = {kind: [self._sent(gap)] if (gap := taken[f"{kind}_gap"]) else [] for kind in ("tutor", "student")}
        models = {kind: self.environment.made[kind]["weights"] for kind in ("tutor", "student")}
        scores = [taken["scores"]] if taken.get("scores") else []
        spec = {**common, "tutor": models["tutor"], "gaps": gaps["tutor"], "scores": scores}
        applied = run_job(apply_gap.main, folder / "apply", spec)
        spec = {**common, "tutor": applied["weights"], "student": models["student"], "student_gaps": gaps["student"]}
        made = run_job(redistil.main, folder / "redistil", spec)
        predictor = OnnxPredictor(Path(made["onnx"]["path"]), threads=1)
        up = sum(taken[f"{kind}_gap"]["bytes"] for kind in gaps if taken[f"{kind}_gap"])
        spent = taken["cpu_s"], applied["cpu_s"] + made["cpu_s"]
        return Outcome(predictor, predictor, up, *spent, Path(made["weights"]))

    def rival_cycle(self, name: str, tutor: Json, **options: object) -> Outcome:
        """A cycle in another form than ours, whose tutor learns as `tutor` says and else as ours does."""
        return self.cycle(name, tutor={**self.environment.plan.cycle.get("tutor", {}), **tutor}, **options)

    def _sent(self, gap: Json) -> Json:
        return {"path": gap["path"], "codec": gap["codec"], "site": self.site.name, "images": len(self.site.data.train)}


def before(trial: Trial) -> Outcome:
    return Outcome(trial.environment.student, trial.environment.student)


def ours(trial: Trial) -> Outcome:
    return trial.cycle("ours")


def paper(trial: Trial) -> Outcome:
    """Two reverse distillations, in which the student teaches all it knows, and nothing else. Statistics are
    re-estimated: otherwise the updated tutor is dead."""
    options = {"student_gap": False, "batch_norm": "re-estimate", "reverse_distillations": "two"}
    return trial.rival_cycle("paper", {"teaches": "everything"}, **options)


def task_arithmetic(trial: Trial) -> Outcome:
    """The tutor's change on private data alone, and a student that the updated tutor teaches on presumed images."""
    return trial.rival_cycle("task-arithmetic", {"losses": {}}, student_gap=False, coreset_images=0)


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


def head_tuned(trial: Trial, *, replay: bool) -> Outcome:
    """The head alone learns; what is below it stays as all other sites have it."""
    recipe = trial.student.model_copy(update={"train_only": ("head",), "batch_norm": "frozen"})
    student, seconds = _timed(lambda: alone.fine_tune(trial.environment, trial.site, recipe, replay=replay))
    return Outcome(student, student, student.weights().fp32_bytes, site_s=seconds)


def two_heads(trial: Trial) -> Outcome:
    student, seconds = trial.fine_tuned
    merged = duet.merge(trial.environment, trial.site, student)
    return Outcome(merged, merged, student.weights().fp32_bytes, seconds)


def averaged(trial: Trial, sections: Sequence[Section] = SECTIONS) -> Outcome:
    made = federated.train_federated(trial.environment, trial.site, trial.student, sections)
    return Outcome(made.cloud, made.site, made.bytes_up, made.seconds[1], made.seconds[0])


def refined(trial: Trial) -> Outcome:
    environment, site, folder = trial.environment, trial.site, trial.folder / "refined"
    student, seconds = _timed(lambda: ultralytics_training.train_refinement(environment, site, trial.student, folder))
    return Outcome(student, student, site_s=seconds)


def together(trial: Trial) -> Outcome:
    student, seconds = _timed(lambda: alone.train_together(trial.environment, trial.site, trial.tutor, trial.student))
    return Outcome(student, student, cloud_s=seconds)


METHODS: dict[str, Callable[[Trial], Outcome]] = {
    BEFORE: before,
    OURS: ours,
    PAPER: paper,
    ARITHMETIC: task_arithmetic,
    DIRECT: direct,
    TUNED: fine_tuned,
    REPLAYED: replayed,
    HEAD: partial(head_tuned, replay=False),
    HEAD_REPLAYED: partial(head_tuned, replay=True),
    DUET: two_heads,
    "FedAvg, 5 rounds": averaged,
    "FedAvg, backbone (UltraFlwr)": partial(averaged, sections=("backbone",)),
    "FedAvg, neck (UltraFlwr)": partial(averaged, sections=("neck",)),
    "FedAvg, head (UltraFlwr)": partial(averaged, sections=("head",)),
    REFINE: refined,
    BOUND: together,
}


Forms = dict[str, dict[str, Columns]]
"""By form and table."""


def measure_cells(
    name: str, folder: Path, made_from: Json, cells: Mapping[str, Callable[[Path], Forms]], *, kept: bool = False
) -> Json:
    """Make each cell that is not on disk yet.

    Args:
        name: Of the scenario; its tables get it in front.
        folder: Where the cells are.
        made_from: What all cells depend on.
        cells: Each makes its forms, and may keep more than numbers beside the file that it is given.
        kept: Make none; take those that are there, whatever they were made from.

    Returns:
        The tables, the commits that the cells were made at, and by form the file of its cell.
    """
    tables: Json = {}
    files: dict[str, str] = {}
    commits = set()
    for cell, make in cells.items():
        path = folder / f"{re.sub('[^a-z0-9.]+', '-', cell.lower()).strip('-')}.json"

        if kept and not path.is_file():
            continue

        def made(make: Callable[[Path], Forms] = make, path: Path = path) -> Json:
            return {"commit": COMMIT, "forms": make(path)}

        found = read_cached(path) if kept else cached(path, made_from | {"method": cell}, made)
        commits.add(found["commit"])
        for form, by_table in found["forms"].items():
            files[form] = str(path)
            for table, columns in by_table.items():
                tables.setdefault(f"{name}: {table}", {})[form] = columns
    return {"commits": sorted(commits), "tables": tables, "files": files}


def _timed(make: Callable[[], Detector]) -> tuple[Detector, float]:
    began = seconds()
    return make(), seconds() - began
