"""`diredi audit`: the log of decisions, and whether it is what it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import emit, facts, progress, table

if TYPE_CHECKING:
    from diredi.rpc.client import Channel

app = typer.Typer(help="The cloud's log of decisions, which only grows.", no_args_is_help=True)

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command("verify", context_settings=_PASS_ON)
def verify(
    context: typer.Context,
    head: Annotated[
        list[Path] | None,
        typer.Option(
            "--head", metavar="FILE", help="A signed head that you have kept (`audit head`); repeat for more."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find any decision that was changed or removed: the whole log against its heads, the releases and the database.

    It takes the flags of `diredi serve cloud` and runs on the cloud's machine, also while the cloud runs. Exit code 3
    if something was changed.
    """
    from cloud_server import audit
    from cloud_server.config import CloudConfig

    config = CloudConfig.from_command_line(context.args)
    with progress(as_json) as bar:
        bar.step("Reading the log")
        report = audit.verify(config, [path.read_bytes() for path in head or []])
    shown = {
        "entries": report.entries,
        "root": report.root,
        "compared with": f"{report.heads} signed heads, {report.releases} published releases, and the database",
        "findings": len(report.findings) or "none",
    }
    tables = [table(("found",), [(finding,) for finding in report.findings])] if report.findings else []
    emit(report.model_dump(mode="json"), as_json, facts(shown), *tables)
    if report.findings:
        raise typer.Exit(3)


@app.command("head")
def head(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the head goes.")],
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Keep a signed head of the log, with which `audit verify --head` finds what is changed after it."""
    from diredi.rpc.release_metadata import fetch_metadata
    from diredi.rpc.release_signing import fetch_roots
    from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
    from diredi.store.files import atomic_write
    from diredi.trust.log_head import LOG_HEAD_FILE, read_head
    from diredi.trust.release_keys import newest_root, read_root
    from diredi_cli.connection import with_cloud

    trusted = read_root(identity)

    async def work(channel: Channel) -> tuple[bytes, list[str]]:
        stub = FleetServiceStub(channel)
        return await fetch_metadata(stub, LOG_HEAD_FILE), await fetch_roots(stub, trusted)

    data, roots = with_cloud(cloud, identity, work)
    found = read_head(data, newest_root([trusted, *(text.encode() for text in roots)]).signed)
    atomic_write(out, data)
    shown = {"entries": found.size, "root": found.root, "signed": f"{found.at:%Y-%m-%d %H:%M:%S} UTC", "kept in": out}
    emit(found.model_dump(mode="json"), as_json, facts(shown))
