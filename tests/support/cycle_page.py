"""The page that leads through the code of one cycle, and what traces the calls that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "one-cycle-in-the-code.md"
_ROW = re.compile(r"^\| `(?P<file>[\w/]+\.py)` \| `(?P<function>[\w.]+)` \|", re.MULTILINE)


class Call(NamedTuple):
    """One row of the page, or one line of a log."""

    file: str
    function: str
    """Of a method with its class; the name of a class alone stands for its `__init__`."""


def named_calls() -> list[Call]:
    """Return the rows of the page, in order."""
    return [Call(match["file"], match["function"]) for match in _ROW.finditer(PAGE.read_text())]


def tracing(log: Path) -> dict[str, str]:
    """Return what makes a process and its children log the calls that the page names."""
    functions: dict[str, list[str]] = {}
    for call in named_calls():
        functions.setdefault(call.file, []).append(call.function)
    told = {"log": str(log), "root": str(ROOT), "functions": functions}
    return {"PYTHONPATH": str(Path(__file__).parent / "traced"), "TRACED_CALLS": json.dumps(told)}


def traced_calls(log: Path) -> list[Call]:
    """Return the calls of all processes in the order in which they were made."""
    lines = sorted((line.split() for line in log.read_text().splitlines()), key=lambda words: int(words[0]))
    return [Call(file, function) for _, file, function in lines]
