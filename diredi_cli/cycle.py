"""`diredi cycle`: update cycles, from the request to the last device."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from diredi.text import bytes_text, percent
from diredi_cli.options import (
    DEFAULT_CLOUD,
    DEFAULT_IDENTITY,
    AsJson,
    Cloud,
    IdentityFolder,
    LabelSource,
    parse_options,
)
from diredi_cli.output import emit, facts, note, progress, table, time_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diredi.rpc.client import Channel
    from diredi.rpc.v1.common_pb2 import DetectionMetrics
    from diredi.rpc.v1.cycles_pb2 import Cycle, GapManifest, SitePart

app = typer.Typer(help="Start, watch and decide on update cycles.", no_args_is_help=True)


CycleId = Annotated[str, typer.Argument(metavar="CYCLE", help="As `diredi cycle list` shows it.")]
_DEADLINE_S = 10.0


@app.command("start")
def start(
    site: Annotated[
        list[str], typer.Option("--site", help="The site to learn from; repeat it for sites that learn together.")
    ],
    labels: Annotated[
        LabelSource | None,
        typer.Option(
            "--labels",
            help="Who says what is on a site's images: its own labels, or an oracle, a detector that looks at each "
            "several times. By default what the cloud's recipe says: mostly the site.",
        ),
    ] = None,
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            metavar="site|group:NAME|fleet",
            help="Whom the release is for, and who may see its class names, models and figures: the one site, the "
            "sites of a group, or all.",
        ),
    ] = "fleet",
    watch: Annotated[bool, typer.Option("--watch", help="Stay until the cycle has ended.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Override the cloud's recipe; repeat for more."),
    ] = None,
    request_id: Annotated[
        str, typer.Option("--request-id", help="The same id starts the same cycle, however often it is asked.")
    ] = "",
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Ask sites for an update. With --watch the exit code says how it ended: 0 released, 5 refused, 1 failed."""
    from diredi.rpc.client import call
    from diredi.rpc.convert import struct_to
    from diredi.rpc.v1.cycles_pb2 import StartCycleRequest
    from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub
    from diredi_cli.connection import with_cloud
    from diredi_cli.watch import check_ended_well, follow

    options = parse_options(option or [])
    recipe = struct_to(options if labels is None else options | {"labels": labels.value})
    request = StartCycleRequest(
        site=site[0], sites=site[1:], request_id=request_id or str(uuid.uuid4()), recipe=recipe, scope=scope
    )

    async def work(channel: Channel) -> Cycle:
        started = (await call(CycleServiceStub(channel).StartCycle, request, deadline_s=_DEADLINE_S)).cycle
        if not watch:
            return started
        if not as_json:
            note(f"cycle {started.id} at {', '.join(site)}")
        with progress(as_json) as bar:
            return await follow(channel, started.id, bar)

    cycle = with_cloud(cloud, identity, work)
    _show(cycle, as_json)
    if watch:
        check_ended_well(cycle)


@app.command("rebase")
def rebase(
    scope: Annotated[
        str, typer.Option("--scope", metavar="site:NAME|group:NAME", help="Whose release is to be rebased.")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Stay until the cycle has ended.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="NAME=VALUE",
            help="Override the recipe of the cycle whose release is rebased; repeat for more.",
        ),
    ] = None,
    request_id: Annotated[
        str, typer.Option("--request-id", help="The same id starts the same cycle, however often it is asked.")
    ] = "",
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Carry what a site or a group has learned over to the newest release of the fleet.

    The cloud does that by itself after each release, once; this tries again, for example with another `max_harm`, which
    says how much mAP50 it may cost a site. With --watch the exit code says how it
    ended, as for `start`.
    """
    from diredi.rpc.client import call
    from diredi.rpc.convert import struct_to
    from diredi.rpc.v1.cycles_pb2 import RebaseReleaseRequest
    from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub
    from diredi_cli.connection import with_cloud
    from diredi_cli.watch import check_ended_well, follow

    recipe = struct_to(parse_options(option or []))
    request = RebaseReleaseRequest(scope=scope, request_id=request_id or str(uuid.uuid4()), recipe=recipe)

    async def work(channel: Channel) -> Cycle:
        started = (await call(CycleServiceStub(channel).RebaseRelease, request, deadline_s=_DEADLINE_S)).cycle
        if not watch:
            return started
        with progress(as_json) as bar:
            return await follow(channel, started.id, bar)

    cycle = with_cloud(cloud, identity, work)
    _show(cycle, as_json)
    if watch:
        check_ended_well(cycle)


@app.command("watch")
def watch(
    cycle_id: CycleId,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Stay until a cycle has ended; the exit code says how: 0 released, 5 refused, 1 failed."""
    from diredi.rpc.client import call
    from diredi.rpc.v1.cycles_pb2 import GetCycleRequest
    from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub
    from diredi_cli.connection import with_cloud
    from diredi_cli.watch import check_ended_well, follow

    async def work(channel: Channel) -> Cycle:
        # A cloud that is away now is told at once; one that goes away later is waited for.
        await call(CycleServiceStub(channel).GetCycle, GetCycleRequest(id=cycle_id), deadline_s=_DEADLINE_S)
        with progress(as_json) as bar:
            return await follow(channel, cycle_id, bar)

    cycle = with_cloud(cloud, identity, work)
    _show(cycle, as_json)
    check_ended_well(cycle)


@app.command("list")
def list_cycles(
    site: Annotated[str, typer.Option("--site", help="Only cycles that this site takes or took part in.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many, newest first.")] = 100,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """List cycles, newest first, and the releases of sites and groups that lack what a wider one has."""
    from diredi.rpc.v1.cycles_pb2 import ListCyclesRequest
    from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub
    from diredi_cli.connection import list_all
    from diredi_cli.proto_json import message_to_dict, to_datetime
    from diredi_cli.watch import state_of

    request = ListCyclesRequest(site=site, limit=min(limit, 1000))
    response = list_all(cloud, identity, lambda channel: CycleServiceStub(channel).ListCycles, request, "cycles", limit)
    rows = [
        (
            cycle.id,
            ", ".join(_briefly(part) for part in cycle.sites),
            cycle.scope,
            state_of(cycle),
            time_text(to_datetime(cycle.history[0].at)) if cycle.history else "",
            cycle.release_version or "",
        )
        for cycle in response.cycles
    ]
    columns = ("cycle", "sites", "scope", "state", "requested", "release")
    emit([message_to_dict(cycle) for cycle in response.cycles], as_json, table(columns, rows, right=("release",)))
    for stale in response.stale:
        note(f"release {stale.release_version} of {stale.scope} {stale.lacks}")


@app.command("show")
def show(
    cycle_id: CycleId,
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Show one cycle: every step, who took it and why."""
    from diredi.rpc.v1.cycles_pb2 import GetCycleRequest
    from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub
    from diredi_cli.connection import ask

    request = GetCycleRequest(id=cycle_id)
    response = ask(cloud, identity, lambda channel: CycleServiceStub(channel).GetCycle, request)
    _show(response.cycle, as_json)


@app.command("approve", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def approve() -> None:
    """Say where a site approves: its consent is its own."""
    from diredi.errors import WrongState

    raise WrongState("a site approves at the site itself: run `diredi site approve CYCLE` there")


@app.command("decline")
def decline(
    cycle_id: CycleId,
    reason: Annotated[str, typer.Option("--reason", help="Goes into the cycle's history.")] = "",
    cloud: Cloud = DEFAULT_CLOUD,
    identity: IdentityFolder = DEFAULT_IDENTITY,
    as_json: AsJson = False,
) -> None:
    """Say a site's no to the cloud, at any time before the gap is uploaded. Needs the site's own identity."""
    from diredi.rpc.v1.cycles_pb2 import DeclineCycleRequest
    from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub
    from diredi_cli.connection import ask

    request = DeclineCycleRequest(id=cycle_id, reason=reason)
    response = ask(cloud, identity, lambda channel: CycleServiceStub(channel).DeclineCycle, request)
    _show(response.cycle, as_json)


def _briefly(part: SitePart) -> str:
    """For one line of many: the name, and the state where the site dropped out."""
    from diredi_cli.watch import state_of

    state = state_of(part)
    return f"{part.site} ({state})" if state in {"DECLINED", "FAILED"} else part.site


def _show(cycle: Cycle, as_json: bool) -> None:
    from diredi_cli.proto_json import message_to_dict, to_datetime
    from diredi_cli.watch import state_of

    values: dict[str, object] = {"cycle": cycle.id, "scope": cycle.scope, "state": state_of(cycle)}
    if cycle.rebases:
        values["rebases"] = f"release {cycle.rebases}"
    if cycle.release_version:
        values["release"] = cycle.release_version
    if cycle.HasField("progress") and cycle.progress.step:
        values["under way"] = f"{cycle.progress.step}, {100 * cycle.progress.fraction:.0f} %"
    steps = [(time_text(to_datetime(step.at)), state_of(step), step.actor, step.reason) for step in cycle.history]
    story = table(("at", "state", "who", "why"), steps)
    emit(message_to_dict(cycle), as_json, facts(values), _sites(cycle), *_decisions(cycle), story)


def _decisions(cycle: Cycle) -> list[RenderableType]:
    """What each site has decided for itself, and the measurement that decided it."""
    rows = [(part.site, one.subject, one.choice, one.because) for part in cycle.sites for one in part.gap.decisions]
    return [table(("site", "", "decided", "because"), rows)] if rows else []


def _sites(cycle: Cycle) -> RenderableType:
    """A line a site: how far it is, what it learned from, what it sent, and how well the fleet's student does there."""
    from diredi_cli.watch import standing_of

    rows = []
    for part in cycle.sites:
        gap, has_gap = part.gap, part.HasField("gap")
        rows.append(
            (
                part.site,
                standing_of(part),
                f"{gap.train_images} images" if has_gap else "",
                _gap_text(gap) if has_gap else "",
                _before_text(part),
                _quality_text(part.site_after) if part.HasField("site_after") else "",
                part.reason or ("publishes its style" if part.publishes_style else ""),
            )
        )
    columns = ("site", "state", "learned from", "gap", "mAP50 before", "after", "remarks")
    return table(columns, rows, right=("learned from", "mAP50 before", "after"))


def _before_text(part: SitePart) -> str:
    """Return how good the release of before is on the site's images; a rebase has learned from no gap."""
    if part.HasField("site_before"):
        return _quality_text(part.site_before)
    return _quality_text(part.gap.student_before) if part.HasField("gap") else ""


def _quality_text(metrics: DetectionMetrics) -> str:
    """Return mAP50 in percent, which is an estimate where an oracle has judged."""
    if not metrics.images:
        return "withheld: too few images"
    return f"about {percent(metrics.map50)} (estimate)" if metrics.judged_by else percent(metrics.map50)


def _gap_text(gap: GapManifest) -> str:
    """The tutor's gap with its share of the tutor's fp32 weights, and the student's: "2.61 MiB (26 %) + 165 KiB"."""
    tutor = gap.tutor_gap
    said = f"{bytes_text(tutor.blob.bytes)} ({100 * tutor.blob.bytes / max(tutor.fp32_bytes, 1):.0f} %)"
    return f"{said} + {bytes_text(gap.student_gap.blob.bytes)}" if gap.HasField("student_gap") else said
