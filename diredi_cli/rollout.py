"""`diredi rollout`: releases on their way to all devices, in steps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from diredi_cli.options import DEFAULT_CLOUD, DEFAULT_IDENTITY, AsJson, Cloud, IdentityFolder
from diredi_cli.output import emit, facts, seconds_text, table

if TYPE_CHECKING:
    from pathlib import Path

    from diredi.rpc.client import Channel
    from diredi.rpc.v1 import releases_pb2
    from diredi.rpc.v1.releases_pb2_grpc import ReleaseServiceAsyncStub

app = typer.Typer(
    help="Releases that reach their devices in steps (`rollout_steps` of the cloud).", no_args_is_help=True
)

Release = Annotated[int, typer.Argument(metavar="RELEASE", min=1, help="The number of the release.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the log of decisions.")]


@app.command("list")
def list_rollouts(
    cloud: Cloud = DEFAULT_CLOUD, identity: IdentityFolder = DEFAULT_IDENTITY, as_json: AsJson = False
) -> None:
    """List the releases that not all devices have got yet, and how they do."""
    from diredi_cli.proto_json import message_to_dict

    rollouts = _read(cloud, identity)
    rows = [
        (
            rollout.version,
            rollout.scope,
            f"{rollout.step_name} of {', '.join(rollout.step_names)}",
            f"{rollout.running} of {rollout.reached}",
            rollout.unhealthy,
            rollout.failed,
            rollout.held,
            rollout.paused or "no",
            seconds_text(rollout.waited_s),
        )
        for rollout in rollouts
    ]
    columns = (
        "release",
        "scope",
        "step",
        "devices that run it well",
        "detect badly",
        "failed",
        "held by sites",
        "paused",
        "in this step for",
    )
    right = ("release", "detect badly", "failed", "held by sites")
    emit([message_to_dict(rollout) for rollout in rollouts], as_json, table(columns, rows, right=right))


@app.command("show")
def show_rollout(
    release: Release,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Show how a release does on its devices, and what was decided about its rollout, by which figures."""
    from diredi_cli.proto_json import message_to_dict, to_datetime

    (rollout,) = _read(cloud, identity, release)
    data = message_to_dict(rollout)
    for decision in data.get("decisions", []):
        decision["figures"] = json.loads(decision["figures"]) if decision.get("figures") else None
    health = {
        "release": f"{rollout.version} of {rollout.scope}, {rollout.status}",
        "step": f"{rollout.step_name} of {', '.join(rollout.step_names)}, for {seconds_text(rollout.waited_s)}",
        "paused": rollout.paused or "no",
        "run it in good health": f"{rollout.running} of {rollout.reached} devices",
        "detect badly with it": rollout.unhealthy,
        **{f"  {symptom.name}": f"{symptom.devices}, such as {symptom.example}" for symptom in rollout.symptoms},
        "could not install it": rollout.failed,
        "held by their sites": rollout.held,
    }
    decisions = [
        (
            f"{to_datetime(decision.at):%Y-%m-%d %H:%M} UTC",
            decision.actor,
            decision.reason,
            _figures_text(decision.figures),
        )
        for decision in rollout.decisions
    ]
    emit(data, as_json, facts(health), table(("when", "who", "decision", "figures then"), decisions))


def _read(cloud: str, identity: Path, version: int = 0) -> list[releases_pb2.Rollout]:
    """Return the rollouts under way, or the one that is named."""
    from diredi.rpc.streams import read_messages
    from diredi.rpc.v1 import releases_pb2
    from diredi.rpc.v1.releases_pb2_grpc import ReleaseServiceStub
    from diredi_cli.connection import with_cloud

    request = releases_pb2.ListRolloutsRequest(version=version)

    async def work(channel: Channel) -> list[releases_pb2.Rollout]:
        stub: ReleaseServiceAsyncStub = ReleaseServiceStub(channel)
        return [rollout async for rollout in read_messages(stub.ListRollouts(request), 30)]

    return with_cloud(cloud, identity, work)


def _figures_text(figures: str) -> str:
    if not figures:
        return ""
    health = json.loads(figures)
    running, reached, unhealthy, failed = map(health.get, ("running", "reached", "unhealthy", "failed"))
    return f"{running} of {reached} well, {unhealthy} detect badly, {failed} failed"


@app.command("pause")
def pause(
    release: Release,
    reason: Reason = "",
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Stop a rollout where it is: devices that have the release keep it, and no other gets it."""
    _change(cloud, identity, release, "PAUSE", 0, reason)
    emit({"release": release, "paused": True}, as_json, facts({"release": release, "state": "paused"}))


@app.command("resume")
def resume(
    release: Release,
    percent: Annotated[
        int, typer.Option("--percent", min=0, max=100, help="At least to this share at once; 0: where it was.")
    ] = 0,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Go on with a rollout, also with one that has paused by itself; `--percent 100` gives it to all devices."""
    _change(cloud, identity, release, "RESUME", percent, "")
    emit({"release": release, "paused": False}, as_json, facts({"release": release, "state": "goes on"}))


@app.command("abort")
def abort(
    release: Release,
    reason: Reason = "",
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Withdraw a release in its rollout: what ran before becomes a new release, because versions only rise."""
    following = _change(cloud, identity, release, "ABORT", 0, reason)
    data = {"release": release, "followed_by": following}
    emit(data, as_json, facts({"release": release, "state": f"withdrawn, and followed by release {following}"}))


def _change(cloud: str, identity: Path, version: int, change: str, percent: int, reason: str) -> int:
    from diredi.rpc.v1 import releases_pb2
    from diredi.rpc.v1.releases_pb2_grpc import ReleaseServiceStub
    from diredi_cli.connection import ask

    value = releases_pb2.RolloutChange.Value(f"ROLLOUT_CHANGE_{change}")
    request = releases_pb2.ChangeRolloutRequest(version=version, change=value, percent=percent, reason=reason)
    answer: releases_pb2.ChangeRolloutResponse = ask(
        cloud, identity, lambda channel: ReleaseServiceStub(channel).ChangeRollout, request
    )
    return answer.release_version
