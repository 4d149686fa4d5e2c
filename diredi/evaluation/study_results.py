"""What a benchmark or a study has found, in the one shape of the project: rows, and targets judged from them.

A row is a form in a table; each of its columns has the mean, the lowest and the highest of the seeds, and every one.
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
"""Table to form to column to number, of one seed."""

_HOLDS: Final[dict[str, Callable[[float, float], bool]]] = {">": operator.gt, "<": operator.lt}
_ROOT = Path(__file__).resolve().parents[2]
_WRITTEN: Final = ("bench/results", "docs/results")
"""By benchmarks."""


def cached(path: Path, made_from: Json, make: Callable[[], Json]) -> Json:
    """What `make` gives, or what is at `path` if that was made from the same. One process makes it, others wait."""
    said = json.dumps(made_from, sort_keys=True, default=str)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_from_that, made = read_state(path, _parsed) or ("", {})
        if made_from_that != said:
            made = make()
            atomic_write(path, json.dumps({"from": said, "made": made}))
    return made


def _parsed(data: bytes) -> tuple[str, Json]:
    there = json.loads(data)
    return str(there["from"]), dict(there["made"])


def target(name: str, value: float, sign: str, bound: float) -> Json:
    """A promise, and whether it is kept. `sign` is ">" or "<"."""
    return {"name": name, "value": float(value), "target": f"{sign} {bound:g}", "met": bool(_HOLDS[sign](value, bound))}


def rows_of(seeds: Sequence[Tables]) -> list[Json]:
    """A row for each form in each table of the first seed: all seeds must have the same."""
    rows: list[Json] = []
    for table, form in ((table, form) for table, forms in seeds[0].items() for form in forms):
        found = {column: [one[table][form][column] for one in seeds] for column in seeds[0][table][form]}
        spread = {c: {"mean": mean(v), "low": min(v), "high": max(v), "seeds": v} for c, v in found.items()}
        rows.append({"table": table, "form": form, **spread})
    return rows


def machine() -> str:
    import torch

    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()}, {os.cpu_count()} cores{device}, torch {torch.__version__}"


def commit() -> str:
    """Of the code that runs, "-dirty" where it was changed since, or the version where it was installed without its
    history. Results that were written before this one change no code."""
    found = _git("describe", "--always", "--exclude=*")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{one}" for one in _WRITTEN))
    return f"{found}-dirty" if found and changed else found or f"version {__version__}"


def _git(*arguments: str) -> str:
    """What it says of this checkout; nothing where there is no git or no checkout."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""
