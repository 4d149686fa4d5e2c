"""`diredi doctor`: what is wrong with a cloud, a site or an edge node on this machine, and what to do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from diredi_cli.output import emit, table

if TYPE_CHECKING:
    from diredi.rpc.doctor import Installation
    from edge_node.config import EdgeConfig

app = typer.Typer(
    help="Say what is wrong with a service on this machine and what to do. Exit code 1 if it cannot work.",
    no_args_is_help=True,
)

# Everything after the name is the service's own configuration: its flags, its variables, its file.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
_IMAGES_STAY = "images, labels and features stay here"
_NO_TELEMETRY = "telemetry of the libraries is off"


@app.command("cloud", context_settings=_PASS_ON, add_help_option=False)
def cloud(context: typer.Context) -> None:
    """Examine a cloud. It takes the flags of `diredi serve cloud`, and --json."""
    from cloud_server.config import CloudConfig
    from diredi.rpc.doctor import Installation

    arguments, as_json = _arguments(context)
    config = CloudConfig.from_command_line(arguments)
    notes = (_NO_TELEMETRY,)
    _examine(Installation(config.identity, None, config.listen, config.state_dir, notes=notes), as_json)


@app.command("site", context_settings=_PASS_ON, add_help_option=False)
def site(context: typer.Context) -> None:
    """Examine a user domain. It takes the flags of `diredi serve site`, and --json."""
    from diredi.rpc.doctor import Installation
    from diredi.trust.identity import Identity, Role, ServerIdentity
    from user_domain.config import UserDomainConfig

    arguments, as_json = _arguments(context)
    config = UserDomainConfig.from_command_line(arguments)
    style = "fourteen averages of style leave with each gap" if config.publish_style else "no style leaves"
    notes = (_IMAGES_STAY, style, f"approval is {config.approval}", _NO_TELEMETRY)
    owner = Identity(Role.SITE, config.site)
    dials: list[tuple[str, str, ServerIdentity]] = [("cloud", config.cloud, Role.CLOUD)]
    _examine(Installation(config.identity, owner, config.listen, config.state_dir, dials, notes), as_json)


@app.command("edge", context_settings=_PASS_ON, add_help_option=False)
def edge(context: typer.Context) -> None:
    """Examine an edge node. It takes the flags of `diredi serve edge`, and --json."""
    from diredi.rpc.doctor import Installation
    from diredi.trust.identity import Identity, Role, ServerIdentity
    from edge_node.config import EdgeConfig

    arguments, as_json = _arguments(context)
    config = EdgeConfig.from_command_line(arguments)
    dials: list[tuple[str, str, ServerIdentity]] = [("cloud", config.cloud, Role.CLOUD)]
    if config.user_domain is not None:
        dials.append(("user domain", config.user_domain, Identity(Role.SITE, config.site)))
    sampled = config.user_domain is not None and config.hand_samples_per_minute > 0
    samples = (
        f"{config.hand_samples_per_minute:g} frames a minute that are worth a label go to the user domain"
        if sampled
        else ""
    )
    outputs = _outputs_of(config)
    notes = (*([samples] if samples else []), *outputs, _NO_TELEMETRY)
    if not samples and not outputs:
        notes = ("no frame leaves this device", *notes)
    owner = Identity(Role.DEVICE, config.device, config.site)
    _examine(Installation(config.identity, owner, config.listen, config.state_dir, dials, notes), as_json)


def _outputs_of(config: EdgeConfig) -> list[str]:
    """Return what an edge node hands on beside gRPC, in a phrase each."""
    found = []
    if config.mqtt is not None:
        pictures = f", and a picture of each camera every {config.mqtt_picture_s:g} s" if config.mqtt_picture_s else ""
        found.append(f"counts and events go to the MQTT broker {config.broker}{pictures}")
    if config.webhook is not None:
        found.append("events go to the webhook")
    if config.http is not None:
        found.append(f"whoever reaches the web server at {config.http} sees what the cameras see")
    return found


def _arguments(context: typer.Context) -> tuple[list[str], bool]:
    """Return the service's own arguments, and whether JSON is wanted."""
    return [argument for argument in context.args if argument != "--json"], "--json" in context.args


def _examine(installation: Installation, as_json: bool) -> None:
    import asyncio

    from diredi.rpc.doctor import Level, examine

    findings = asyncio.run(examine(installation))
    rows = [(finding.level, finding.check, finding.found, finding.remedy or "nothing") for finding in findings]
    data = {
        "ok": all(finding.level is not Level.ERROR for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }
    emit(data, as_json, table(("", "check", "found", "to do"), rows))
    if not data["ok"]:
        raise typer.Exit(1)
