"""`diredi site`: the sites that the cloud knows, and what one site says of itself inside."""

from __future__ import annotations

from typing import Annotated

import typer

from diredi.errors import InvalidInput
from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import ago_text, bytes_text, emit, facts, table

app = typer.Typer(help="The sites that the cloud knows, and one site's own status.", no_args_is_help=True)


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


@app.command("status")
def status(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="Where the user domain listens (`--listen`), inside the site.")
    ],
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Show the status of a user domain, and what it wants its people to decide. Ask with the site's own identity."""
    from diredi.rpc.v1.local_pb2 import GetSiteStatusRequest, GetSiteStatusResponse
    from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
    from diredi.trust.identity import Credentials, Identity, Role
    from diredi_cli.connection import ask
    from diredi_cli.proto_json import message_to_dict

    own = Credentials.load(identity).identity
    if not own.site:
        raise InvalidInput(f"{own} belongs to no site: ask with the identity of the site, or of a device of it")
    response: GetSiteStatusResponse = ask(
        address,
        identity,
        lambda channel: LocalServiceStub(channel).GetSiteStatus,
        GetSiteStatusRequest(),
        server=Identity(Role.SITE, own.site),
    )
    shown = [
        facts(
            {
                "site": response.site,
                "cloud": "connected" if response.cloud_online else "away",
                "images": f"{response.train_images} to learn from, {response.held_out_images} held out",
                "samples": response.samples,
                "cycle under way": response.cycle_id or "none",
                "sent": bytes_text(sum(response.sent_bytes.values())),
                "last error": response.last_error or "none",
            }
        )
    ]
    if response.class_proposals:
        title = "Decide before the next cycle: class_names in the site's configuration says what each class is"
        shown.append(table(("class", "may be"), sorted(response.class_proposals.items()), title=title))
    emit(message_to_dict(response), as_json, *shown)
