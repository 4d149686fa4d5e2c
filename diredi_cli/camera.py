"""`diredi camera`: the cameras of the network that this machine is in."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from diredi_cli.options import AsJson
from diredi_cli.output import emit, note, table

app = typer.Typer(help="The cameras of this machine's network.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `find` a command of its own while it is the only one."""


@app.command("find")
def find(
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=60, help="How long to wait for answers.")] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Ask the local network for ONVIF cameras, and list what an edge node's `--source` can be set to."""
    from edge_node.sources.onvif import find_cameras

    cameras = find_cameras(seconds)
    rows = [(camera.address, camera.name or "none", camera.source) for camera in cameras]
    emit(
        [{**asdict(camera), "source": camera.source} for camera in cameras],
        as_json,
        table(("address", "name", "source"), rows),
    )
    if not cameras:
        note("no camera answered: it may have ONVIF switched off, or stand in another network")
