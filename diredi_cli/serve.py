"""`diredi serve`: runs a service in this terminal."""

from __future__ import annotations

import os
import sys

import typer

app = typer.Typer(help="Run a service in this terminal until Ctrl-C.", no_args_is_help=True)

# Everything after the name belongs to the service, --help included.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command("cloud", context_settings=_PASS_ON, add_help_option=False)
def cloud(context: typer.Context) -> None:
    """The manufacturer's service (`diredi serve cloud --help` lists its flags)."""
    _become("cloud_server", context.args)


@app.command("site", context_settings=_PASS_ON, add_help_option=False)
def site(context: typer.Context) -> None:
    """A site's user domain (`diredi serve site --help` lists its flags)."""
    _become("user_domain", context.args)


@app.command("edge", context_settings=_PASS_ON, add_help_option=False)
def edge(context: typer.Context) -> None:
    """An edge node (`diredi serve edge --help` lists its flags)."""
    _become("edge_node", context.args)


def _become(module: str, arguments: list[str]) -> None:
    """Replaces this process, so that signals and the exit code are the service's own."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
