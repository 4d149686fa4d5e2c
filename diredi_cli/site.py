"""`diredi site`: the sites that the cloud knows."""

from __future__ import annotations

import typer

from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import ago_text, bytes_text, emit, table

app = typer.Typer(help="The sites that the cloud knows.", no_args_is_help=True)


@app.command("list")
def list_sites(
    cloud: Cloud = DEFAULT_CLOUD, identity: IdentityFolder = DEFAULT_IDENTITY, as_json: AsJson = False
) -> None:
    """List sites, and what the cloud has received from each."""
    from diredi.rpc.v1.sites_pb2 import ListSitesRequest, ListSitesResponse
    from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
    from diredi_cli.connection import ask
    from diredi_cli.proto_json import message_to_dict, to_datetime

    response: ListSitesResponse = ask(
        cloud, identity, lambda channel: SiteServiceStub(channel).ListSites, ListSitesRequest()
    )
    rows = [
        (
            site.name,
            "online" if site.online else "away",
            ago_text(to_datetime(site.last_seen)) if site.HasField("last_seen") else "never",
            site.group or "none",
            site.devices,
            bytes_text(sum(site.received_bytes.values())),
            site.cycle_id or "none",
        )
        for site in response.sites
    ]
    columns = ("site", "state", "last seen", "group", "devices", "received", "cycle under way")
    emit(
        [message_to_dict(site) for site in response.sites], as_json, table(columns, rows, right=("devices", "received"))
    )
