"""The log events of the programs, read from their code: for `docs/reference/events.md` and its test.

An event is the first argument of a call on a logger. Where that is a parameter of the function around the call, the
events are what the callers in the same package pass for it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("cloud_server", "user_domain", "edge_node", "peer_node", "diredi")
LEVELS = ("debug", "info", "warning", "error", "exception")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_LOGGERS = {"log", "_log", "logger", "structlog"}


@dataclass
class Event:
    """One event.

    Attributes:
        name: Its name, the value of `event` in the JSON of the log.
        packages: Which packages log it; "diredi" is part of every program.
        levels: The levels at which it is logged.
        fields: The names of its other values.
    """

    name: str
    packages: set[str] = field(default_factory=set)
    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def events(root: Path = ROOT) -> list[Event]:
    """Return every event that the code can log, by name.

    Args:
        root: The checkout to read.

    Raises:
        ValueError: The event of a call cannot be read from the code.
    """
    found: dict[str, Event] = {}
    for package in PROGRAMS:
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((root / package).rglob("*.py"))]
        for call, around in (pair for tree in trees for pair in _log_calls(tree)):
            for name in _names(call, around, trees):
                event = found.setdefault(name, Event(name))
                event.packages.add(package)
                event.levels.add("error" if call.func.attr == "exception" else call.func.attr)  # type: ignore[attr-defined]
                event.fields |= {keyword.arg for keyword in call.keywords if keyword.arg not in (None, "exc_info")}
    return sorted(found.values(), key=lambda event: event.name)


def _log_calls(node: ast.AST, around: _Function | None = None) -> Iterator[tuple[ast.Call, _Function | None]]:
    """Yield the calls on a logger, each with the function that it stands in."""
    if isinstance(node, _Function):
        around = node
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and node.args
        and _is_logger(node.func.value)
    ):
        yield node, around
    for child in ast.iter_child_nodes(node):
        yield from _log_calls(child, around)


def _is_logger(node: ast.expr) -> bool:
    """Tell `log`, `self._log`, `structlog.get_logger()` and `log.bind(...)` from other objects."""
    if isinstance(node, ast.Call):
        return _is_logger(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr in _LOGGERS or _is_logger(node.value)
    return isinstance(node, ast.Name) and node.id in _LOGGERS


def _names(call: ast.Call, around: ast.FunctionDef | ast.AsyncFunctionDef | None, trees: Iterable[ast.AST]) -> set[str]:
    first = call.args[0]
    if isinstance(first, ast.Name) and around is not None:
        parameters = [argument.arg for argument in around.args.args if argument.arg != "self"]
        if first.id in parameters:
            place = parameters.index(first.id)
            passed = [node for tree in trees for node in ast.walk(tree) if _calls(node, around.name)]
            found = {name for node in passed for name in _constants(node.args[place])}  # type: ignore[attr-defined]
            if found:
                return found
    found = _constants(first)
    if not found:
        raise ValueError(f"line {call.lineno}: the event of this call cannot be read: {ast.unparse(call)}")
    return found


def _calls(node: ast.AST, name: str) -> bool:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    called = node.func
    return (isinstance(called, ast.Attribute) and called.attr == name) or (
        isinstance(called, ast.Name) and called.id == name
    )


def _constants(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return _constants(node.body) | _constants(node.orelse)
    return set()
