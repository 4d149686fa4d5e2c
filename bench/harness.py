"""The one shape of a benchmark that trains: seeds in; a table, a picture, NAME.json and NAME.md out.

`QUICK=1` writes to `bench/results/quick` and to nothing else; `FULL=gpu` is the larger plan and writes NAME-gpu. Cells
are kept in `runs/NAME`: delete that folder after a change of the code. Metrics are equal only on equal machines.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import torch
from environment import GPU, QUICK, ROOT, use_one_thread
from report import WARNING, Json, document, rows_of, shown, write

from diredi.decentralized.executors import process_pool

Measured = Callable[[int, Path], Json]
"""measured(seed, folder for cells): "commits", and "tables": table to form to column to number."""
Picture = Callable[[list[Json], str, Path], None]
"""picture(rows, title, path)."""

Work = TypeVar("Work")
"""A seed, or whatever else is measured by itself."""

RESULTS = ROOT / "bench" / "results"
SEEDS = [0, 1, 2]
"""Of a whole run, the only one that is written to the results of the project."""


def folder_of(name: str) -> Path:
    """Where the cells of a benchmark are kept."""
    return RESULTS / "quick" / name if QUICK else ROOT / "runs" / (f"{name}-gpu" if GPU else name)


def parser_of(
    doc: str | None, quick_seeds: Sequence[int], whole_seeds: Sequence[int] = SEEDS
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    seeds = list(quick_seeds if QUICK else whole_seeds)
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds, help=f"default: {' '.join(map(str, seeds))}")
    return parser


def conduct(
    name: str,
    doc: str | None,
    measured: Measured,
    targets_of: Callable[[list[Json]], list[Json]],
    picture: Picture,
    quick_seeds: Sequence[int] = (0, 1),
) -> None:
    """Measures what is not measured yet, and says what was found."""
    conclude(name, parser_of(doc, quick_seeds).parse_args().seeds, measured, targets_of, picture)


def side_by_side(measured: Callable[[Work, Path], Json], work: Sequence[Work], folder: Path) -> list[Json]:
    """As much at once as there are cores, each on one thread in a process of its own; one at a time on a GPU."""
    at_once = 1 if torch.cuda.is_available() else min(len(work), os.cpu_count() or 1)
    if at_once == 1:
        use_one_thread()
        return [measured(one, folder) for one in work]
    with process_pool(at_once) as pool:
        return list(pool.map(measured, work, repeat(folder)))


def conclude(
    name: str,
    seeds: Sequence[int],
    measured: Measured,
    targets_of: Callable[[list[Json]], list[Json]],
    picture: Picture,
    whole_seeds: Sequence[int] = SEEDS,
) -> None:
    made = side_by_side(measured, seeds, folder_of(name))
    rows = rows_of([one["tables"] for one in made])
    targets, listed = targets_of(rows), " ".join(map(str, seeds))
    shown(rows, targets)
    commits = ", ".join(sorted({one for seed in made for one in seed["commits"]}))
    plan = "QUICK=1 " if QUICK else "FULL=gpu " if GPU else ""
    command = f"{plan}python bench/{Path(sys.argv[0]).name} --seeds {listed}"
    title, whole = f"{name}-gpu" if GPU else name, not QUICK and list(seeds) == list(whole_seeds)
    out = RESULTS if whole else RESULTS / "quick" if QUICK else folder_of(name)
    out.mkdir(parents=True, exist_ok=True)
    picture(rows, WARNING if QUICK else f"seeds {listed}", out / f"{title}.png")
    found = {"command": command, "commit": commits, "quick": QUICK, "rows": rows, "targets": targets}
    write(out, title, found)
    if whole:
        document(out, title, found)
