"""`diredi peers`: learning without a cloud, from what neighbours say of public samples."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diredi.errors import DirediError
from diredi.text import bytes_text
from diredi_cli.options import AsJson
from diredi_cli.output import emit, note, seconds_text, stderr, table
from diredi_cli.study import study

if TYPE_CHECKING:
    from rich.table import Table

    from peer_node.processes import PeersFile, PeerStatus

app = typer.Typer(help="Learn without a cloud: peers that learn from each other's predictions.", no_args_is_help=True)
app.command("study")(study)


@app.command("run")
def run(
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="YAML: peers, rounds, topology, learner, options, data.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Keep keys, configurations, logs, summaries and models there."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run several peers as processes of this machine, with keys of their own, to the end of their rounds.

    A peer that dies costs the others a wait; it is an error only if none gets to its end.
    """
    from peer_node.processes import PeersFile, run_peers

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs start with it ignored
    file = PeersFile.from_command_line(["--config", str(config)])
    began = time.monotonic()
    with nullcontext(out) if out is not None else tempfile.TemporaryDirectory() as kept, _shown(file, as_json) as show:
        folder = Path(kept)
        folder.mkdir(parents=True, exist_ok=True)
        statuses = run_peers(file, folder, show)
        data = [{"name": status.name, "ended": status.ended, **_summary(folder, status.name)} for status in statuses]
    seconds = time.monotonic() - began
    if not any(status.ended == "done" for status in statuses):
        raise DirediError(f"no peer got to its end: {statuses[0].name} {statuses[0].ended}")
    title = f"{file.rounds} rounds of {file.peers} peers in {seconds_text(seconds)}"
    emit({"seconds": round(seconds, 3), "peers": data}, as_json, _table(statuses, file.rounds, title))


def _summary(folder: Path, name: str) -> dict[str, Any]:
    """Its rounds and bytes; no rounds where it died in the first."""
    from peer_node.processes import summary_path

    try:
        summary = json.loads(summary_path(folder, name).read_text())
    except FileNotFoundError:
        summary = {}
    return {key: summary.get(key, empty) for key, empty in (("rounds", []), ("sent_bytes", {}), ("received_bytes", {}))}


@contextmanager
def _shown(file: PeersFile, as_json: bool) -> Iterator[Callable[[PeerStatus], None]]:
    """A table that lives on a terminal, a line a round elsewhere, nothing with `--json`."""
    console = stderr()
    if as_json:
        yield lambda _: None
    elif not console.is_terminal:
        yield lambda status: _say(status, file.rounds)
    else:
        from rich.live import Live

        seen: dict[str, PeerStatus] = {}
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def show(status: PeerStatus) -> None:
                seen[status.name] = status
                live.update(_table([seen[name] for name in file.names if name in seen], file.rounds), refresh=True)

            yield show


def _say(status: PeerStatus, rounds: int) -> None:
    if status.ended and status.ended != "done":
        note(f"{status.name} {status.ended}")
    elif status.doing == "round done":
        missing = f", missing {_missing(status)}" if status.missing else ""
        note(
            f"{status.name} round {status.round} of {rounds}: heard {len(status.answered)}{missing}; {_metrics(status)}"
        )


def _table(statuses: list[PeerStatus], rounds: int, title: str = "") -> Table:
    rows = [
        (
            status.name,
            f"{status.round}/{rounds}",
            status.doing,
            len(status.answered),
            _missing(status) or "none",
            _metrics(status),
            bytes_text(status.sent_bytes),
        )
        for status in statuses
    ]
    columns = ("peer", "round", "", "heard", "missing", "metrics", "sent")
    return table(columns, rows, title=title, right=("round", "heard", "sent"))


def _missing(status: PeerStatus) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in status.missing.items())


def _metrics(status: PeerStatus) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in status.metrics.items())
