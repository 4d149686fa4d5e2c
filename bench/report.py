"""What a bench that trains for many seeds shares: keeping what is finished, and saying what was found."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

from diredi.evaluation import study_results
from diredi.evaluation.study_results import Json, rows_of, target

mpl.use("Agg")
import matplotlib.pyplot as plt

__all__ = [
    "COMMIT",
    "HERE",
    "WARNING",
    "Json",
    "write_markdown",
    "draw",
    "cached",
    "read_cached",
    "rows_of",
    "seconds",
    "print_rows",
    "target",
    "write_json",
]
HERE = Path(__file__).parent
WARNING = "QUICK: tiny models that learn next to nothing; these figures say only that the bench runs"


def cached(path: Path, made_from: Json, make: Callable[[], Json]) -> Json:
    """As `study_results.cached`, whatever folder this checkout lies in, and it says how long a cell took."""

    def timed() -> Json:
        began, made = time.monotonic(), make()
        print(f"{path.parent.name}/{path.stem}: {time.monotonic() - began:.0f} s", flush=True)
        return made

    portable = json.dumps(made_from, default=str).replace(str(HERE.parent), "")
    return study_results.cached(path, json.loads(portable), timed)


def read_cached(path: Path) -> Json:
    """What `cached` has kept, whatever it was made from."""
    return dict(json.loads(path.read_text())["made"])


def seconds() -> float:
    """The processor's, which a process beside this one does not change; where a GPU works, the clock's."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.monotonic()
    return time.process_time()


def print_rows(rows: list[Json], targets: list[Json]) -> None:
    for table in dict.fromkeys(row["table"] for row in rows):
        ours = [row for row in rows if row["table"] == table]
        columns = [name for name in ours[0] if name not in ("table", "form")]
        print(f"\n{table:46}" + "".join(f"{column:>24}" for column in columns))
        for row in ours:
            cells = (_short_cell(row[column]) for column in columns)
            print(f"{row['form']:46}" + "".join(f"{cell:>24}" for cell in cells))
    print()
    for one in targets:
        print(f"{'met   ' if one['met'] else 'MISSED'} {one['name']}: {one['value']:.2f} ({one['target']})")


def _short_cell(found: Json | str) -> str:
    return found if isinstance(found, str) else "{mean:.2f} ({low:.2f}..{high:.2f})".format(**found)


COMMIT = study_results.commit()
"""Of the code that runs: asked when it is loaded, for an hour later the tree may be another."""


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "a thread for each seed"
    return f"{platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}"


def draw(rows: list[Json], tables: dict[str, str], columns: Sequence[str], title: str, path: Path) -> None:
    """A panel for each of `tables` (name to title), with bars of percent for each of `columns`."""
    width, across = 0.8 / len(columns), min(len(tables), 3)
    forms = [sum(row["table"] == table for row in rows) for table in tables]
    heights = [1.2 + 0.3 * max(forms[start : start + across]) for start in range(0, len(forms), across)]
    figure, axes = plt.subplots(
        len(heights),
        across,
        figsize=(6.0 * across, sum(heights)),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat[len(tables) :]:
        axis.remove()
    for axis, (table, heading) in zip(axes.flat, tables.items(), strict=False):
        ours = [row for row in rows if row["table"] == table][::-1]
        for number, column in enumerate(columns):
            low, middle, high = (np.array([row[column][what] for row in ours]) for what in ("low", "mean", "high"))
            reach = np.maximum([middle - low, high - middle], 0)  # a mean of equal numbers may differ in its last bit
            places = np.arange(len(ours)) + 0.4 - width * (number + 0.5)
            axis.barh(places, middle, width, xerr=reach, label=column, capsize=2)
        axis.set_yticks(range(len(ours)), [row["form"] for row in ours])
        axis.set_xlabel("percent; whiskers: seeds")
        axis.set_title(heading)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(columns))
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def write_json(folder: Path, name: str, found: Json) -> None:
    """`found` as NAME.json, with the machine; says where it and the picture are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
    print(*([WARNING] if found["quick"] else []), f"in {folder}: {name}.json, {name}.png", sep="\n")


def write_markdown(folder: Path, name: str, found: Json) -> None:
    """Write all tables of a benchmark as NAME.md, beside its NAME.json and NAME.png.

    Args:
        folder: Where to write.
        name: What the benchmark is called.
        found: Its command, commit, rows and targets.
    """
    (folder / f"{name}.md").write_text(_markdown(name, found))


def _markdown(name: str, found: Json) -> str:
    lines = [f"# {name}", "", f"    {found['command']}", ""]
    lines += [
        f"{machine()}; commit {found['commit']}. Mean over the seeds, and the lowest and highest of them.",
        "",
    ]
    for table in dict.fromkeys(row["table"] for row in found["rows"]):
        ours = [row for row in found["rows"] if row["table"] == table]
        columns = [column for column in ours[0] if column not in ("table", "form")]
        lines += [f"| {table} | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
        lines += [f"| {row['form']} | {' | '.join(_cell(row[column]) for column in columns)} |" for row in ours]
        lines += [""]
    if found["targets"]:
        lines += ["| target | wanted | found | met |", "|---|---|---|---|"]
        lines += [
            f"| {t['name']} | {t['target']} | {t['value']:.2f} | {'yes' if t['met'] else 'no'} |"
            for t in found["targets"]
        ]
    return "\n".join([*lines, "", f"![{name}]({name}.png)", ""])


def _cell(found: Json | str) -> str:
    if isinstance(found, str):
        return found
    digits = 1 if max(map(abs, found["seeds"])) >= 1 else 2
    if found["low"] == found["high"]:
        return f"{found['mean']:.{digits}f}"
    return f"{found['mean']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"
