"""`diredi device`: the edge nodes of the fleet, and which release each one runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from diredi.text import ago_text
from diredi_cli.enrolment import Address, AsQr, Hosts, Valid, create_token, retire
from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import emit, table

SOURCE_PROBLEMS = {
    "OPENING": "no frame yet",
    "AWAY": "no frames",
    "REFUSED": "wrong password",
    "UNREADABLE": "not readable",
    "ENDED": "ended",
}
"""What the states of a source mean for somebody who looks for what is wrong."""

WAITS = {1: "held by the site", 2: "waits for the site's window"}
"""Why a device has not installed the release that is for it (`UpdateWait`)."""

app = typer.Typer(help="The edge nodes of the fleet.", no_args_is_help=True)


@app.command("list")
def list_devices(
    site: Annotated[str, typer.Option("--site", help="Only devices of this site.")] = "",
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """List devices: which release each one runs, since when, on what, and whose certificate ends within 30 days."""
    from diredi.rpc.v1.fleet_pb2 import (
        INSTALL_OUTCOME_FAILED,
        Device,
        ListDevicesRequest,
        ListDevicesResponse,
        SourceState,
    )
    from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
    from diredi.trust.live import ENDS_SOON
    from diredi_cli.connection import list_all
    from diredi_cli.proto_json import message_to_dict, to_datetime

    response: ListDevicesResponse = list_all(
        cloud, identity, lambda channel: FleetServiceStub(channel).ListDevices, ListDevicesRequest(site=site), "devices"
    )

    def state_of(device: Device) -> str:
        if not device.online:
            return "away"
        states = {
            source.name: SourceState.Name(source.state).removeprefix("SOURCE_STATE_") for source in device.sources
        }
        problems = [f"{name}: {SOURCE_PROBLEMS[state]}" for name, state in states.items() if state in SOURCE_PROBLEMS]
        problems += [f"{source.name}: {source.drift} has changed" for source in device.sources if source.drift]
        if device.update_wait in WAITS:
            problems.append(WAITS[device.update_wait])
        if device.updates_stalled:
            problems.append("takes no updates")
        if device.failed_frames:
            problems.append(f"{device.failed_frames} frames failed")
        return ", ".join(["online", *problems])

    def last_install(device: Device) -> str:
        if not device.installs:
            return "none"
        last = device.installs[-1]
        said = f"failed: {last.reason}" if last.outcome == INSTALL_OUTCOME_FAILED else "installed"
        return f"{last.release_version} {said} {ago_text(to_datetime(last.at))}"

    def certificate_of(device: Device) -> str:
        ends, now = to_datetime(device.certificate_expires), datetime.now(UTC)
        if not device.HasField("certificate_expires") or ends - now >= ENDS_SOON:
            return ""
        return (
            f", certificate expired {ago_text(ends)}" if ends < now else f", certificate ends in {(ends - now).days} d"
        )

    rows = [
        (
            device.name,
            device.site,
            state_of(device) + certificate_of(device),
            device.release_version or "none",
            f"{device.scope or 'none'}{f', {device.lacks}' if device.lacks else ''}",
            last_install(device),
            f"{device.frames:,}",
            f"{device.frames_per_second:.1f}",
            f"{device.latency_ms:.1f}",
            device.runtime or "unknown",
        )
        for device in response.devices
    ]
    columns = (
        "device",
        "site",
        "state",
        "release",
        "scope",
        "last install",
        "frames",
        "frames/s",
        "latency ms",
        "runtime",
    )
    right = ("release", "frames", "frames/s", "latency ms")
    emit([message_to_dict(device) for device in response.devices], as_json, table(columns, rows, right=right))


@app.command("enroll")
def enroll(
    name: Annotated[str, typer.Argument(help="The name of the new device.")],
    site: Annotated[str, typer.Option("--site", help="The site that it stands at.")],
    host: Hosts = None,
    valid: Valid = "24h",
    as_qr: AsQr = False,
    address: Address = "",
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Make a token with which one new device gets its certificate, once. Its key is made there. For admins."""
    from diredi.trust.identity import Identity, Role

    create_token(cloud, identity, Identity(Role.DEVICE, name, site), host or [], valid, address, as_json, as_qr)


@app.command("retire")
def retire_device(
    name: Annotated[str, typer.Argument(help="The name of the device.")],
    site: Annotated[str, typer.Option("--site", help="The site that it stands at.")],
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Revoke all certificates and tokens of a device; it is cut off within seconds. For admins."""
    from diredi.trust.identity import Identity, Role

    retire(cloud, identity, Identity(Role.DEVICE, name, site), as_json)
