"""`diredi console`: the operator's console, which the cloud serves as web pages."""

from __future__ import annotations

import typer

from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import emit, note

app = typer.Typer(help="The operator's console in a browser.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `open` a command of its own while it is the only one."""


@app.command("open")
def open_console(
    cloud: Cloud = DEFAULT_CLOUD, identity: IdentityFolder = DEFAULT_IDENTITY, as_json: AsJson = False
) -> None:
    """Print a link to the cloud's console. It works once, for two minutes, with the role of the identity that asks."""
    from diredi_cli.connection import open_pages

    url = open_pages(cloud, identity)
    emit({"url": url}, as_json, url)
    if not as_json:
        note("open it in a browser within two minutes: it works once")
