"""What an update costs the site, and what it buys: `make bench-cost`.

Tutors of three sizes, and two numbers of epochs, on a site with new light and a new class (site-1). Every tutor comes
from the same presumed images, every cell starts from the same deployed student, and the site's student learns for as
many epochs as its tutor, as by default. Each cell is a process of its own, so that its peak of memory
is the site's: torch and the images are in it. Seconds are the processor's, on one thread, without the start of Python.

"gained" are points of mAP50 on the site's held-out images, of the deployed student and the student gap at the largest
lambda that does no harm: what the site buys. "tutor 2" is the site's own tutor, "presumed" what the student has lost or
won on the manufacturer's images.

What is finished is kept in `runs/cost` and not measured again: delete it after a change of the code. `QUICK=1` runs
through all of it with tiny models that learn next to nothing, into `bench/results/quick`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from environment import (
    GPU,
    QUICK,
    BenchSite,
    Environment,
    Plan,
    choose_plan,
    describe_plan,
    empty_folder,
    ignore_progress,
    use_one_thread,
)
from harness import parser_of, report_results
from numpy.typing import NDArray
from report import COMMIT, Json, cached, seconds, target

from diredi.detectors import registry
from diredi.jobs import call
from diredi.knowledge.gap import Gap
from diredi.knowledge.gap_application import apply_gap
from diredi.knowledge.jobs import bootstrap, extract

SITE, NEW, TABLE = "scenes:site-1", "forklift", "cost"
NOISE = 1.0
"""Points of mAP50 within which two cells are taken for equal: as far as seeds lie apart."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    plan: Plan
    tutors: Sequence[str]
    epochs: Sequence[int]
    default: tuple[str, int]
    most_mib: int
    """What the default may take of the site's memory."""


def choose_grid() -> Grid:
    plan = choose_plan()
    if QUICK:
        return Grid(plan, ("yolo11-w0.0625", plan.tutor), (1, 2), (plan.tutor, 2), 2000)
    if GPU:
        return Grid(plan, ("yolo11n", "yolo11s", plan.tutor), (5, 10, 20), (plan.tutor, 20), 8000)
    return Grid(plan, ("yolo11-w0.125", plan.tutor, "yolo11-w0.375"), (4, 12), (plan.tutor, 12), 2000)


class Trial:
    """One seed: the deployed student, the site, and a tutor of each size."""

    def __init__(self, grid: Grid, seed: int, folder: Path) -> None:
        self.grid, self.folder = grid, folder / f"seed-{seed}"
        self.environment = Environment(seed, grid.plan)
        self.site: BenchSite = self.environment.site(SITE)
        student = self.site.metrics(self.environment.student)
        self.before = 100 * student.map50

    def cells(self) -> dict[str, dict[str, float]]:
        return {form_name(tutor, n): self._cell(tutor, n) for tutor in self.grid.tutors for n in self.grid.epochs}

    def _tutor(self, architecture: str) -> Json:
        """Weights, and mAP50 at the site before any update. It learns as the environment's own tutor does."""
        environment, student = self.environment, self.environment.made["student"]["weights"]
        recipe = {"seed": environment.seed, **environment.plan.bootstrap, "coreset_images": 0}
        models = {"tutor": architecture, "student": student, "image_size": environment.plan.image_size}
        spec = {"presumed": str(environment.presumed_path), **models, "recipe": recipe}

        def made() -> Json:
            ours = architecture == environment.plan.tutor
            found = (
                environment.made if ours else call(bootstrap.main, spec, self.folder / architecture, ignore_progress)
            )
            weights = found["tutor"]["weights"]
            return {"weights": weights, "map50": self.site.metrics(registry.load(Path(weights))).map50}

        return cached(self.folder / f"tutor-{architecture}.json", spec, made)

    def _cell(self, architecture: str, epochs: int) -> dict[str, float]:
        tutor, folder = self._tutor(architecture), self.folder / f"{architecture}-{epochs}"
        recipe = self._recipe(epochs)
        spec = {**self.environment.extract_spec(self.site, recipe), "tutor": tutor["weights"]}
        cell = cached(folder / "cell.json", spec, lambda: self._made(spec, folder))
        gaps, student = (cell["tutor_gap"], cell["student_gap"]), cell["student"]
        return {
            "gained": 100 * student["map50"] - self.before,
            "student before": self.before,
            "student after": 100 * student["map50"],
            NEW: 100 * student["new"],
            "presumed": 100 * student["presumed"],
            "tutor before": 100 * tutor["map50"],
            "tutor 2": 100 * cell["tutor_after"]["map50"],
            "seconds": cell["cpu_s"],
            "peak MiB": cell["peak_mib"],
            "MB up": sum(gap["bytes"] for gap in gaps) / 1e6,
        }

    def _recipe(self, epochs: int) -> Json:
        def lasting(kind: str, n: int) -> Json:
            given = self.environment.plan.cycle.get(kind, {})
            return {**given, "steps": 4 * n} if "steps" in given else {**given, "epochs": n}

        return self.environment.cycle(tutor=lasting("tutor", epochs), student=lasting("student", epochs))

    def _made(self, spec: Json, folder: Path) -> Json:
        """The site's work in a process of its own, then the release that the cloud makes of its student gap."""
        found = in_a_process(spec, empty_folder(folder / "job"))
        gap = Gap.load(found["student_gap"]["path"])
        applied = apply_gap(self.environment.student, gap, guard=self.environment.presumed, recipe=spec["recipe"])
        metrics = self.site.metrics(applied.model)
        change = applied.after.map50 - applied.before.map50
        return {**found, "student": {"map50": metrics.map50, "new": metrics.per_class[NEW].ap50, "presumed": change}}


def in_a_process(spec: Json, folder: Path) -> Json:
    """The result of the site's job, with the seconds and the memory of the process that did it."""
    (folder / "spec.json").write_text(json.dumps(spec))
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, "--cell", str(folder)], env=alone, check=True)
    return dict(json.loads((folder / "used.json").read_text()))


def cell(folder: Path) -> None:
    """What `in_a_process` starts."""
    use_one_thread()
    spec, began = json.loads((folder / "spec.json").read_text()), seconds()
    result = call(extract.main, spec, folder, ignore_progress)
    used = {"cpu_s": seconds() - began, "peak_mib": peak_mib()}
    (folder / "used.json").write_text(json.dumps({**result, **used}))


def peak_mib() -> float:
    """Of this process. `getrusage` would say that of whoever started it where that one was larger."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def form_name(tutor: str, epochs: int) -> str:
    return f"{tutor}, {epochs} epochs"


def targets_of(rows: list[Json], grid: Grid) -> list[Json]:
    """Judged from the rows alone; points are of mAP50 in percent."""
    by_form = {row["form"]: row for row in rows}

    def seeds(tutor: str, epochs: int, column: str) -> Numbers:
        return np.array(by_form[form_name(tutor, epochs)][column]["seeds"])

    cells = [(tutor, epochs) for tutor in grid.tutors for epochs in grid.epochs]
    spent = {cell: seeds(*cell, "seconds").mean() for cell in cells}
    gained = {cell: seeds(*cell, "gained").mean() for cell in cells}
    cheaper = [gained[cell] for cell in cells if cell != grid.default and spent[cell] <= spent[grid.default]]
    fewest = (grid.default[0], min(grid.epochs))
    kept_share = 100 * gained[fewest] / gained[grid.default] if gained[grid.default] > 0 else 0.0
    return [
        target("gained by the default, worst seed, points", seeds(*grid.default, "gained").min(), ">", 0),
        target(
            "best cell that takes the site no more seconds, minus the default, points gained, mean",
            max(cheaper, default=0.0) - gained[grid.default],
            "<",
            NOISE,
        ),
        target("share of the default's gain that its fewest epochs keep, mean, percent", kept_share, ">", 50),
        target(
            "peak of memory of the default, worst seed, MiB", seeds(*grid.default, "peak MiB").max(), "<", grid.most_mib
        ),
        target("bytes up of the default, worst seed, MB", seeds(*grid.default, "MB up").max(), "<", 5),
    ]


def draw(rows: list[Json], grid: Grid, title: str, path: Path) -> None:
    """Points gained against seconds, a bubble's area for bytes, a line for each tutor."""
    by_form = {row["form"]: row for row in rows}
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    for number, tutor in enumerate(grid.tutors):
        ours = [by_form[form_name(tutor, epochs)] for epochs in grid.epochs]
        seconds, gained, low, high, megabytes = (
            np.array([row[column][what] for row in ours])
            for column, what in (
                ("seconds", "mean"), ("gained", "mean"), ("gained", "low"), ("gained", "high"), ("MB up", "mean")
            )
        )  # fmt: skip
        colour = f"C{number}"
        axis.errorbar(seconds, gained, yerr=np.maximum([gained - low, high - gained], 0), color=colour, capsize=2, lw=1)
        axis.scatter(
            seconds, gained, s=120 * megabytes, color=colour, alpha=0.5, label=f"{tutor}, {megabytes[0]:.1f} MB"
        )
        for epochs, x, y in zip(grid.epochs, seconds, gained, strict=True):
            axis.annotate(f"{epochs}", (x, y), textcoords="offset points", xytext=(6, -12), color=colour)
    axis.set_xlabel("processor seconds at the site, one thread (numbers: epochs)")
    axis.set_ylabel("points of mAP50 gained at the site; whiskers: seeds")
    axis.legend(title="tutor, bytes up")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def measure(seed: int, folder: Path) -> Json:
    grid = choose_grid()
    asked = {"plan": describe_plan(grid.plan), "tutors": grid.tutors, "epochs": grid.epochs}

    def made() -> Json:
        return {"commits": [COMMIT], "tables": {TABLE: Trial(grid, seed, folder).cells()}}

    return cached(folder / f"seed-{seed}.json", asked, made)


def main() -> None:
    parser = parser_of(__doc__, (0, 1))
    parser.add_argument("--cell", type=Path, help=argparse.SUPPRESS)
    asked, grid = parser.parse_args(), choose_grid()
    if asked.cell is not None:
        cell(asked.cell)
        return

    def targets(rows: list[Json]) -> list[Json]:
        return targets_of(rows, grid)

    def picture(rows: list[Json], title: str, path: Path) -> None:
        draw(rows, grid, title, path)

    report_results("cost", asked.seeds, measure, targets, picture)


if __name__ == "__main__":
    main()
