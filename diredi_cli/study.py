"""`diredi peers study`: one study of decentralised learning, from its cells to its table and picture."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diredi.errors import InvalidInput
from diredi_cli.options import AsJson
from diredi_cli.output import emit, note, progress, table

if TYPE_CHECKING:
    from rich.console import RenderableType

QUICK = "quick: little is learned, and these figures say only that the study runs"


def study(
    preset: Annotated[
        str, typer.Option("--preset", metavar="NAME", help="Which study; --list says what there is.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Ten minutes at most; the figures mean nothing.")] = False,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="Where NAME.json and NAME.png go; with --quick its folder quick."),
    ] = Path("bench/results"),
    runs: Annotated[
        Path, typer.Option("--runs", metavar="FOLDER", help="Where finished cells are kept, to go on from there.")
    ] = Path("runs"),
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FOLDER", help="Folder with a folder for each data set; without, they are downloaded."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes of one thread each; 0 for one a core.")
    ] = 0,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Measure on the Ray cluster there instead; `local` starts one. Its nodes need diredi, and the data.",
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Say what studies there are, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare methods of decentralised learning.

    Stopped at any point, the same command goes on with what is missing.
    """
    from diredi.decentralized.studies import STUDIES, Options, run_study

    if listed:
        about = {name: one.about for name, one in STUDIES.items()}
        emit(about, as_json, table(("preset", "what it asks"), about.items()))
        return
    if preset not in STUDIES:
        raise InvalidInput(f"there is no study {preset!r}: use --preset with {' or '.join(sorted(STUDIES))}")
    chosen = STUDIES[preset]
    options = Options(quick, data, workers or os.cpu_count() or 1, ray)
    with progress(as_json) as bar:

        def finished(done: int, cells: int) -> None:
            bar.step(f"Study {preset}", done / cells, f"{done} of {cells} cells")

        found = run_study(chosen, options, runs / ("quick" if quick else "") / preset, finished)
    place = out / "quick" if quick else out
    place.mkdir(parents=True, exist_ok=True)
    chosen.draw(
        found["rows"], QUICK if quick else "mean of the seeds; whiskers: lowest and highest", place / f"{preset}.png"
    )
    (place / f"{preset}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    emit(found, as_json, *_shown(found))
    note(f"{QUICK}\n{place / preset}.json and .png" if quick else f"{place / preset}.json and .png")


def _shown(found: dict[str, Any]) -> list[RenderableType]:
    """Tables in short where there are such, and what was claimed."""
    tables = list(dict.fromkeys(row["table"] for row in found["rows"]))
    short = [name for name in tables if name.endswith(": in short")] or tables
    shown: list[RenderableType] = [_one(name, [row for row in found["rows"] if row["table"] == name]) for name in short]
    claims = [
        (one["name"], one["target"], f"{one['value']:.2f}", "yes" if one["met"] else "no") for one in found["targets"]
    ]
    return [*shown, table(("claim", "wanted", "found", "met"), claims, title="Claims", right=("wanted", "found"))]


def _one(name: str, rows: list[dict[str, Any]]) -> RenderableType:
    columns = [column for column in rows[0] if column not in ("table", "form")]
    cells = ([row["form"], *("{mean:.1f} ({low:.1f} to {high:.1f})".format(**row[c]) for c in columns)] for row in rows)
    return table(("form", *columns), cells, title=name.removesuffix(": in short"), right=columns)
