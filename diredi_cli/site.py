"""`diredi site`: the sites that the cloud knows, and what one site says of itself and agrees to inside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from diredi.errors import InvalidInput
from diredi.text import ago_text, bytes_text, percent
from diredi_cli.enrolment import Address, AsQr, Hosts, Valid, create_token, retire
from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import emit, facts, note, table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from diredi.consent import Event
    from diredi.rpc.client import Channel
    from diredi.rpc.v1.local_pb2 import ConsentRequest
    from diredi.rpc.v1.overlay_pb2 import Overlay

app = typer.Typer(help="The sites that the cloud knows, and one site's own status and consent.", no_args_is_help=True)

UserDomain = Annotated[
    str, typer.Argument(metavar="HOST:PORT", help="Where the user domain listens (`--listen`), inside the site.")
]
CycleId = Annotated[str, typer.Argument(metavar="CYCLE", help="As `diredi site requests` shows it.")]


@app.command("list")
def list_sites(
    cloud: Cloud = DEFAULT_CLOUD, identity: IdentityFolder = DEFAULT_IDENTITY, as_json: AsJson = False
) -> None:
    """List sites, and what the cloud has received from each."""
    from diredi.rpc.v1.sites_pb2 import ListSitesRequest, ListSitesResponse
    from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
    from diredi_cli.connection import list_all
    from diredi_cli.proto_json import message_to_dict, to_datetime

    response: ListSitesResponse = list_all(
        cloud, identity, lambda channel: SiteServiceStub(channel).ListSites, ListSitesRequest(), "sites"
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
    address: UserDomain,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Show the status of a user domain, and what it wants its people to decide. Ask with the site's own identity."""
    from diredi.rpc.v1.local_pb2 import GetSiteStatusRequest, GetSiteStatusResponse
    from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
    from diredi.rpc.v1.overlay_pb2 import ListOverlaysRequest
    from diredi.rpc.v1.overlay_pb2_grpc import OverlayServiceStub
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
    overlays = ask(
        address,
        identity,
        lambda channel: OverlayServiceStub(channel).ListOverlays,
        ListOverlaysRequest(),
        server=Identity(Role.SITE, own.site),
    ).overlays
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
    if overlays:
        title = "Overlays of this site, for the releases that its edge nodes have asked for (mAP50 on held-out images)"
        rows = [_overlay_row(overlay) for overlay in overlays]
        shown.append(table(("release", "overlay", "alone", "with it"), rows, right=("alone", "with it"), title=title))
    data = message_to_dict(response) | {"overlays": [message_to_dict(overlay) for overlay in overlays]}
    emit(data, as_json, *shown)


def _overlay_row(overlay: Overlay) -> tuple[object, ...]:
    from diredi.rpc.v1 import overlay_pb2

    texts = {
        overlay_pb2.OVERLAY_STATE_PENDING: "is being measured",
        overlay_pb2.OVERLAY_STATE_READY: ", ".join(
            [
                "in use",
                *([f"{100 * overlay.share:.0f} % of the site's statistics"] if overlay.share else []),
                *([f"{overlay.input_width} x {overlay.input_height} pixels"] if overlay.input_width else []),
                *(["8 bits"] if overlay.quantised else []),
            ]
        ),
        overlay_pb2.OVERLAY_STATE_NONE: overlay.problem or "none, the release is better alone",
    }
    left_out = f" ({overlay.left_out})" if overlay.left_out else ""
    measured = [overlay.before, overlay.after] if overlay.HasField("before") else []
    figures = [percent(metrics.map50) for metrics in measured] or ["", ""]
    return (overlay.release.removeprefix("sha256:")[:12], texts.get(overlay.state, "") + left_out, *figures)


@app.command("open")
def open_site(address: UserDomain, identity: IdentityFolder = DEFAULT_IDENTITY, as_json: AsJson = False) -> None:
    """Print a link to the site's web pages. It works once, for two minutes. Ask with the site's own identity."""
    from diredi.trust.identity import Credentials
    from diredi_cli.connection import open_pages

    url = open_pages(address, identity, Credentials.load(identity).identity)
    emit({"url": url}, as_json, url)
    if not as_json:
        note("open it in a browser within two minutes: it works once")


@app.command("requests")
def list_requests(address: UserDomain, identity: IdentityFolder = DEFAULT_IDENTITY, as_json: AsJson = False) -> None:
    """Show what the site is asked for and has not decided yet: the work, what leaves, and who will see it."""
    from diredi.rpc.v1.local_pb2 import ListRequestsRequest
    from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
    from diredi.trust.identity import Credentials
    from diredi_cli.connection import ask

    response = ask(
        address, identity, lambda channel: LocalServiceStub(channel).ListRequests, ListRequestsRequest(),
        server=Credentials.load(identity).identity,
    )  # fmt: skip
    data = [
        {"cycle": one.cycle_id, "what": json.loads(one.what), "explanation": _texts(one)} for one in response.requests
    ]
    emit(data, as_json, *(_explained(one) for one in response.requests))
    if not data and not as_json:
        note("nothing waits for a decision")


@app.command("approve")
def approve(
    address: UserDomain,
    cycle_id: CycleId,
    yes: Annotated[bool, typer.Option("--yes", help="Show what is asked, and do not ask whether to approve.")] = False,
    identity: IdentityFolder = DEFAULT_IDENTITY,
) -> None:
    """Say the site's yes to a cycle, after showing what it means. It is signed with the site's own key."""
    _decide(cycle_id, "approved", "", address, identity, confirm=not yes)


@app.command("decline")
def decline(
    address: UserDomain,
    cycle_id: CycleId,
    reason: Annotated[str, typer.Option("--reason", help="The manufacturer is told.")] = "",
    identity: IdentityFolder = DEFAULT_IDENTITY,
) -> None:
    """Say the site's no to a cycle. It is signed with the site's own key."""
    _decide(cycle_id, "declined", reason, address, identity, confirm=False)


def _decide(cycle_id: str, event: Event, reason: str, address: str, identity: Path, *, confirm: bool) -> None:
    """Show what is asked, sign the decision about just that, and hand it to the site's service."""
    import os
    from datetime import UTC, datetime

    from diredi.consent import ConsentEntry, sign_entry
    from diredi.errors import NotFound
    from diredi.rpc.client import call
    from diredi.rpc.v1.local_pb2 import DecideRequest, ListRequestsRequest
    from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
    from diredi.trust.identity import Credentials
    from diredi_cli.connection import with_cloud

    credentials = Credentials.load(identity)

    async def find(channel: Channel) -> ConsentRequest:
        listed = await call(LocalServiceStub(channel).ListRequests, ListRequestsRequest(), deadline_s=10)
        for request in listed.requests:
            if request.cycle_id == cycle_id:
                return request
        raise NotFound(f"nothing of cycle {cycle_id!r} waits here: `diredi site requests` lists what does")

    asked = with_cloud(address, identity, find, credentials.identity)
    emit(None, False, _explained(asked))
    if confirm:
        typer.confirm("Does this site take part?", abort=True)
    entry = ConsentEntry(
        event=event, site=credentials.identity.name, cycle_id=cycle_id, what=json.loads(asked.what),
        by=f"a person (user {os.getuid()})", reason=reason[:500], at=datetime.now(UTC),
    )  # fmt: skip
    signed = sign_entry(entry, credentials)

    async def send(channel: Channel) -> None:
        request = DecideRequest(entry=signed.text, signature=signed.signature)
        await call(LocalServiceStub(channel).Decide, request, deadline_s=10)

    with_cloud(address, identity, send, credentials.identity)
    note(f"{event} cycle {cycle_id}: signed, and in the site's journal of consent")


ReleaseNumber = Annotated[str, typer.Argument(metavar="RELEASE", help="The number of a release; `all` for every one.")]


@app.command("hold")
def hold(
    address: UserDomain,
    release: ReleaseNumber,
    reason: Annotated[str, typer.Option("--reason", help="For the site's journal; nobody else reads it.")] = "",
    identity: IdentityFolder = DEFAULT_IDENTITY,
) -> None:
    """Hold a release: this site's devices do not install it. It is signed with the site's own key.

    Devices that run it already keep it. The cloud sees that they wait, and counts it as no failure.
    """
    _say_of_release("held", release, reason, address, identity)


@app.command("unhold")
def unhold(
    address: UserDomain,
    release: ReleaseNumber,
    reason: Annotated[str, typer.Option("--reason", help="For the site's journal; nobody else reads it.")] = "",
    identity: IdentityFolder = DEFAULT_IDENTITY,
) -> None:
    """Let this site's devices install a release that the site has held. It is signed with the site's own key."""
    _say_of_release("unheld", release, reason, address, identity)


def _say_of_release(event: Event, release: str, reason: str, address: str, identity: Path) -> None:
    import os
    from datetime import UTC, datetime

    from diredi.consent import ConsentEntry, sign_entry
    from diredi.rpc.v1.local_pb2 import HoldReleaseRequest
    from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
    from diredi.trust.identity import Credentials
    from diredi_cli.connection import ask

    if release != "all" and not (release.isdecimal() and int(release)):
        raise InvalidInput(f"{release!r} is no release: write its number, or all")
    credentials = Credentials.load(identity)
    entry = ConsentEntry(
        event=event, site=credentials.identity.name, cycle_id="",
        what={"release": 0 if release == "all" else int(release)}, by=f"a person (user {os.getuid()})",
        reason=reason[:500], at=datetime.now(UTC),
    )  # fmt: skip
    signed = sign_entry(entry, credentials)
    ask(
        address, identity, lambda channel: LocalServiceStub(channel).HoldRelease,
        HoldReleaseRequest(entry=signed.text, signature=signed.signature), server=credentials.identity,
    )  # fmt: skip
    note(f"{event} {'all releases' if release == 'all' else f'release {release}'}: signed, and in the site's journal")


@app.command("windows")
def windows(address: UserDomain, identity: IdentityFolder = DEFAULT_IDENTITY, as_json: AsJson = False) -> None:
    """Show when this site's devices may change over, and which releases the site holds.

    The hours stand in the configuration of the user domain (`update_windows`, `time_zone`).
    """
    from diredi.rpc.v1.local_pb2 import GetUpdateRulesRequest, GetUpdateRulesResponse
    from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
    from diredi.trust.identity import Credentials, Identity, Role
    from diredi_cli.connection import ask
    from diredi_cli.proto_json import message_to_dict, to_datetime

    own = Credentials.load(identity).identity
    rules: GetUpdateRulesResponse = ask(
        address, identity, lambda channel: LocalServiceStub(channel).GetUpdateRules, GetUpdateRulesRequest(),
        server=Identity(Role.SITE, own.site),
    )  # fmt: skip
    following = f"{to_datetime(rules.windows[0].begins):%Y-%m-%d %H:%M} UTC" if rules.windows else "none"
    held = "all releases" if rules.all_held else ", ".join(map(str, rules.held)) or "none"
    shown = {"windows": rules.words or "at any time", "held": held}
    if rules.has_windows:
        shown["open now, or from"] = following
    emit(message_to_dict(rules), as_json, facts(shown))


def _explained(request: ConsentRequest) -> RenderableType:
    return facts(_texts(request))


def _texts(request: ConsentRequest) -> dict[str, str]:
    return {one.subject: one.text for one in request.explanation}


@app.command("enroll")
def enroll(
    name: Annotated[str, typer.Argument(help="The name of the new site.")],
    host: Hosts = None,
    valid: Valid = "24h",
    as_qr: AsQr = False,
    address: Address = "",
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Make a token with which one new site gets its certificate, once. Its key is made there. For admins."""
    from diredi.trust.identity import Identity, Role

    create_token(cloud, identity, Identity(Role.SITE, name), host or [], valid, address, as_json, as_qr)


@app.command("retire")
def retire_site(
    name: Annotated[str, typer.Argument(help="The name of the site.")],
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Revoke all certificates and tokens of a site and its devices; they are cut off within seconds. For admins."""
    from diredi.trust.identity import Identity, Role

    retire(cloud, identity, Identity(Role.SITE, name), as_json)
