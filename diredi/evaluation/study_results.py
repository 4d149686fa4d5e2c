"""Results of benchmarks and studies in one shape: rows, and targets that are judged from them.

A row is one form in one table. Each of its columns has the mean, the lowest and the highest value of the seeds, and the
value of every seed.
"""

from __future__ import annotations

import fcntl
import json
import operator
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from diredi import __version__
from diredi.store.files import atomic_write, read_state

Json = dict[str, Any]
Tables = dict[str, dict[str, dict[str, float]]]
"""The numbers of one seed, by table, form and column."""

_HOLDS: Final[dict[str, Callable[[float, float], bool]]] = {">": operator.gt, "<": operator.lt}
_ROOT = Path(__file__).resolve().parents[2]
_WRITTEN: Final = ("bench/results", "docs/results")
"""Folders that benchmarks write to."""


def cached(path: Path, made_from: Json, make: Callable[[], Json]) -> Json:
    """Return a cached result, or make and cache it.

    Other processes that ask for the same file wait until it is made.

    Args:
        path: File of the result. It is made again if it was made from something else.
        made_from: Everything that the result depends on.
        make: Makes the result, which JSON must be able to hold.
    """
    key = json.dumps(made_from, sort_keys=True, default=str)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        saved_key, made = read_state(path, _parse) or ("", {})
        if saved_key != key:
            made = make()
            atomic_write(path, json.dumps({"from": key, "made": made}))
    return made


def _parse(data: bytes) -> tuple[str, Json]:
    there = json.loads(data)
    return str(there["from"]), dict(there["made"])


def target(name: str, value: float, sign: str, bound: float) -> Json:
    """Judge a target.

    Args:
        name: What was measured.
        value: The measured value.
        sign: ">" or "<": which side of `bound` the value should be on.
        bound: The bound.

    Returns:
        The target as it is written to results: "name", "value", "target" and "met".
    """
    return {"name": name, "value": float(value), "target": f"{sign} {bound:g}", "met": bool(_HOLDS[sign](value, bound))}


def rows_of(seeds: Sequence[Tables]) -> list[Json]:
    """Build the rows of results from the numbers of each seed.

    Args:
        seeds: Tables of each seed; all must have the tables, forms and columns of the first.
    """
    rows: list[Json] = []
    for table, form in ((table, form) for table, forms in seeds[0].items() for form in forms):
        columns = {column: [tables[table][form][column] for tables in seeds] for column in seeds[0][table][form]}
        spread = {c: {"mean": mean(v), "low": min(v), "high": max(v), "seeds": v} for c, v in columns.items()}
        rows.append({"table": table, "form": form, **spread})
    return rows


def machine() -> str:
    """Describe this machine: architecture, cores, GPU and version of torch."""
    import torch

    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()}, {os.cpu_count()} cores{device}, torch {torch.__version__}"


def commit() -> str:
    """Return the commit of the code that runs, or the installed version where there is no git history.

    It ends in "-dirty" where code was changed since the commit; files of results do not count as code.
    """
    name = _git("describe", "--always", "--exclude=*")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{folder}" for folder in _WRITTEN))
    return f"{name}-dirty" if name and changed else name or f"version {__version__}"


def _git(*arguments: str) -> str:
    """Return git's output for this checkout; empty where there is no git or no checkout."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""
