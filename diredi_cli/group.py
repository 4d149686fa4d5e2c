"""`diredi group`: sites for which a cycle's release may be together."""

from __future__ import annotations

from typing import Annotated

import typer

from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import emit, facts, note, table

app = typer.Typer(help="Groups of sites, which may have releases of their own.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The group's name; a scope names it as group:NAME.")]


@app.command("set")
def set_group(
    name: Name,
    site: Annotated[list[str], typer.Option("--site", help="A site of the group; repeat it for all of them.")],
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Make a group of these sites and of no others. They see all that the group's cycles learn and have learned."""
    from diredi.rpc.v1.sites_pb2 import Group, SetGroupRequest
    from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
    from diredi_cli.connection import ask
    from diredi_cli.proto_json import message_to_dict

    request = SetGroupRequest(group=Group(name=name, sites=site))
    response = ask(cloud, identity, lambda channel: SiteServiceStub(channel).SetGroup, request)
    group = response.group
    emit(message_to_dict(group), as_json, facts({"group": group.name, "sites": ", ".join(group.sites)}))
    for change in response.changes:
        note(change)


@app.command("list")
def list_groups(
    cloud: Cloud = DEFAULT_CLOUD, identity: IdentityFolder = DEFAULT_IDENTITY, as_json: AsJson = False
) -> None:
    """List groups and their sites."""
    from diredi.rpc.v1.sites_pb2 import ListGroupsRequest
    from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
    from diredi_cli.connection import list_all
    from diredi_cli.proto_json import message_to_dict

    groups = list_all(
        cloud, identity, lambda channel: SiteServiceStub(channel).ListGroups, ListGroupsRequest(), "groups"
    ).groups
    rows = [(group.name, ", ".join(group.sites)) for group in groups]
    emit([message_to_dict(group) for group in groups], as_json, table(("group", "sites"), rows))


@app.command("remove")
def remove_group(name: Name, cloud: Cloud = DEFAULT_CLOUD, identity: IdentityFolder = DEFAULT_IDENTITY) -> None:
    """Remove a group. Its devices return to the release of their site, else to the fleet's."""
    from diredi.rpc.v1.sites_pb2 import RemoveGroupRequest
    from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
    from diredi_cli.connection import ask

    request = RemoveGroupRequest(name=name)
    response = ask(cloud, identity, lambda channel: SiteServiceStub(channel).RemoveGroup, request)
    note(f"group {name} is removed; its devices return to their sites' own release, else to the fleet's")
    for change in response.changes:
        note(change)
