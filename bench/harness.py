"""Run a benchmark over seeds, and write a table, a picture, NAME.json and NAME.md.

`QUICK=1` writes to `bench/results/quick` alone; `FULL=gpu` runs the larger plan and writes NAME-gpu. Cells are cached
in `runs/NAME`: delete that folder after a change of the code. Metrics are equal only on equal machines.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import torch
from environment import GPU, QUICK, ROOT, use_one_thread
from report import WARNING, Json, print_rows, rows_of, write_json, write_markdown

from diredi.decentralized.executors import process_pool

Measure = Callable[[int, Path], Json]
"""Called as measure(seed, folder for cells); returns "commits" and "tables", numbers by table, form and column."""
Picture = Callable[[list[Json], str, Path], None]
"""Called as picture(rows, title, path)."""

Work = TypeVar("Work")
"""A seed, or anything else that is measured independently."""

RESULTS = ROOT / "bench" / "results"
SEEDS = [0, 1, 2]
"""Seeds of a whole run; only such runs are written to the results of the project."""


def folder_of(name: str) -> Path:
    """Return the folder of a benchmark's cells."""
    return RESULTS / "quick" / name if QUICK else ROOT / "runs" / (f"{name}-gpu" if GPU else name)


def parser_of(
    doc: str | None, quick_seeds: Sequence[int], whole_seeds: Sequence[int] = SEEDS
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    seeds = list(quick_seeds if QUICK else whole_seeds)
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds, help=f"default: {' '.join(map(str, seeds))}")
    return parser


def run_benchmark(
    name: str,
    doc: str | None,
    measure: Measure,
    targets_of: Callable[[list[Json]], list[Json]],
    picture: Picture,
    quick_seeds: Sequence[int] = (0, 1),
) -> None:
    """Measure the cells that are not cached yet, and report the results."""
    report_results(name, parser_of(doc, quick_seeds).parse_args().seeds, measure, targets_of, picture)


def measure_concurrently(measure: Callable[[Work, Path], Json], work: Sequence[Work], folder: Path) -> list[Json]:
    """Measure on all cores, with a process of one thread each; one at a time on a GPU."""
    at_once = 1 if torch.cuda.is_available() else min(len(work), os.cpu_count() or 1)
    if at_once == 1:
        use_one_thread()
        return [measure(one, folder) for one in work]
    with process_pool(at_once) as pool:
        return list(pool.map(measure, work, repeat(folder)))


def report_results(
    name: str,
    seeds: Sequence[int],
    measure: Measure,
    targets_of: Callable[[list[Json]], list[Json]],
    picture: Picture,
    whole_seeds: Sequence[int] = SEEDS,
) -> None:
    made = measure_concurrently(measure, seeds, folder_of(name))
    rows = rows_of([one["tables"] for one in made])
    commits = [one for seed in made for one in seed["commits"]]
    write_results(name, seeds, rows, targets_of(rows), commits, picture, whole=list(seeds) == list(whole_seeds))


def write_results(
    name: str,
    seeds: Sequence[int],
    rows: list[Json],
    targets: list[Json],
    commits: Sequence[str],
    picture: Picture,
    *,
    whole: bool,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print and write results; to those of the project where the run is `whole`. `more` is what else the JSON says."""
    print_rows(rows, targets)
    plan = "QUICK=1 " if QUICK else "FULL=gpu " if GPU else ""
    asked = sys.argv[1:] or ["--seeds", *map(str, seeds)]
    command = f"{plan}python bench/{Path(sys.argv[0]).name} {shlex.join(asked)}"
    title, whole = f"{name}-gpu" if GPU else name, whole and not QUICK
    out = RESULTS if whole else RESULTS / "quick" if QUICK else folder_of(name)
    out.mkdir(parents=True, exist_ok=True)
    picture(rows, WARNING if QUICK else f"seeds {' '.join(map(str, seeds))}", out / f"{title}.png")
    found = {"command": command, "commit": ", ".join(sorted(set(commits))), "quick": QUICK}
    write_json(out, title, found | dict(more or {}) | {"rows": rows, "targets": targets})
    if whole:
        write_markdown(out, title, found | {"rows": rows, "targets": targets})
