"""What commands print: tables for people, JSON for programs, and progress on standard error."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from diredi.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from diredi.data.dataset import Dataset
    from diredi.progress import OnProgress


_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON may hold as they are, and that steer a terminal."""


def stdout() -> Console:
    """Return the console for results.

    Where it is not a terminal it is as wide as its contents need, so that no column is cut in a log.
    """
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_width(160))


def stderr() -> Console:
    """Return the console for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _width(default: int) -> int:
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else default


def emit(data: object, as_json: bool, *renderables: RenderableType) -> None:
    """Print a result.

    Args:
        data: The result as plain values, printed as JSON with `--json`.
        as_json: Whether `--json` was given.
        *renderables: What people read instead.
    """
    if as_json:
        ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
        text = json.dumps(data, indent=2, ensure_ascii=ascii_only, default=str)
        sys.stdout.write(_STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
        return
    console = stdout()
    for renderable in renderables:
        console.print(renderable)


def note(message: str) -> None:
    """Print one line for people that is no result."""
    stderr().print(printable(message, keep="\n\t"), markup=False, soft_wrap=True)


def notes(dataset: Dataset) -> None:
    """Print what a user should know of a data set before long work begins."""
    for text in dataset.notes:
        note(f"note: {text}")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", right: Sequence[str] = ()
) -> Table:
    """Return a plain table.

    Args:
        columns: Titles of the columns.
        rows: Cells of each row; they are texts, never markup.
        title: A line above the table.
        right: Titles of the columns that hold numbers.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell), keep="\n")) for cell in row))
    return result


def facts(values: Mapping[str, object]) -> Table:
    """Return a table of names and values, for one thing in detail."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in values.items():
        grid.add_row(Text(printable(name), style="dim"), Text(printable(str(value), keep="\n")))
    return grid


def seconds_text(seconds: float) -> str:
    """Return a duration as people read it: 75.3 as "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def time_text(moment: datetime | None) -> str:
    """Return a moment in this machine's time zone, or "never"."""
    return "never" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


class Progress(Protocol):
    """The progress of a long command, for the person who waits."""

    def step(self, name: str, fraction: float | None = None, message: str = "") -> None:
        """Report that a step is under way; a new name ends the step before.

        Args:
            name: The step in words.
            fraction: How much of it is done, from 0 to 1; None while that is not known.
            message: One short line beside it.
        """
        ...


def heard_by(bar: Progress, name: str) -> OnProgress:
    """Return an `on_progress` that shows all that it hears as one step of a command.

    Args:
        bar: What the command shows its progress with.
        name: What people read.
    """
    return lambda now: bar.step(name, now.fraction, now.message)


class _Silent:
    def step(self, name: str, fraction: float | None = None, message: str = "") -> None:
        pass


class _Lines:
    """Not a terminal, so no bar: one line when a step begins and one when it ends, for logs."""

    def __init__(self) -> None:
        self._current = ""
        self._began = 0.0

    def step(self, name: str, fraction: float | None = None, message: str = "") -> None:
        name = printable(name)
        if name == self._current:
            return
        self.close()
        self._current, self._began = name, time.monotonic()
        sys.stderr.write(f"{name} ...\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self._current:
            sys.stderr.write(f"{self._current}: {seconds_text(time.monotonic() - self._began)}\n")
            sys.stderr.flush()
        self._current = ""


class _Bars:
    """A line with a bar for the step under way, and the ended ones above it with the time they took."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}", style="dim", markup=False),
            console=console,
        )
        self._current = ""
        self._task: Any = None
        self._bars.start()

    def step(self, name: str, fraction: float | None = None, message: str = "") -> None:
        name, message = printable(name), printable(message)
        if name != self._current:
            self._end_step()
            self._current = name
            self._task = self._bars.add_task(name, total=None, message="")
        total = None if fraction is None else 1.0
        self._bars.update(self._task, total=total, completed=min(fraction or 0.0, 0.999), message=message)

    def _end_step(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, total=1.0, completed=1.0, message="")
        self._task = None

    def close(self, ended_well: bool) -> None:
        if ended_well:
            self._end_step()
        self._bars.stop()


@contextmanager
def progress(as_json: bool = False) -> Iterator[Progress]:
    """Show progress for a block: bars on a terminal, lines elsewhere, nothing with `--json`."""
    if as_json:
        yield _Silent()
        return
    console = stderr()
    if not console.is_terminal:
        lines = _Lines()
        yield lines
        lines.close()
        return
    bars = _Bars(console)
    ended_well = False
    try:
        yield bars
        ended_well = True
    finally:
        bars.close(ended_well)
