"""The page of rollouts: how far each release is on its way to all devices, and what an operator does about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Request
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from cloud_server.convert import reason_from
from cloud_server.entities import Outcome, Release
from cloud_server.fleet.service import RolloutReport
from cloud_server.notifier import RELEASES
from cloud_server.pages.parts import ConsoleParts, actor_of, may_operate, when_changed
from cloud_server.store import Repository
from diredi.web.app import Changing, Viewing, body_of, pages_of, read, wants_json
from diredi.web.charts import lines

MOST_RELEASES: Final = 100
_POINTS: Final = 24
_AGAIN_S: Final = 15.0
"""Numbers of devices change without word; the page counts them again after so many seconds."""


class Point(BaseModel):
    """How many devices had installed a release, or could not, until a moment."""

    at: datetime
    installed: int
    failed: int


class StepView(BaseModel):
    """One step of a rollout that was decided."""

    at: datetime
    by: str
    why: str


class RolloutView(BaseModel):
    """A release that not all devices have got yet."""

    version: int
    scope: str
    cycle: str
    steps: list[str]
    """Groups of sites, then shares of the devices."""
    step: int
    """The one under way, from 0."""
    percent: int
    paused: str
    waited_s: float
    reached: int
    running: int
    failed: int
    unhealthy: int
    """Devices that run the release and detect badly with it."""
    complaint: str
    """What is wrong with their detection; empty for nothing."""
    held: int
    """Devices whose site holds the release: nobody waits for them."""
    health: list[Point]
    decisions: list[StepView]
    """Newest first."""

    def chart(self, installed: str, failed: str, label: str) -> Markup:
        """Return the chart of installations over time."""
        begin = self.health[0].at
        days = (self.health[-1].at - begin) > timedelta(days=2)
        return lines(
            [f"{point.at:%-d %b}" if days else f"{point.at:%H:%M}" for point in self.health],
            {installed: [point.installed for point in self.health], failed: [point.failed for point in self.health]},
            label, lambda value: "" if value % 1 else f"{value:.0f}", height=200,
        )  # fmt: skip


class ReleaseLine(BaseModel):
    """A release, in the list of all."""

    version: int
    scope: str
    status: str
    percent: int
    devices: int
    cycle: str
    created: datetime


class RolloutsView(BaseModel):
    """All rollouts under way, the rules that they follow, and the releases."""

    rollouts: list[RolloutView]
    releases: list[ReleaseLine]
    """Newest first."""
    step_s: float
    min_success: float
    max_failures: float
    may_operate: bool


class ChangeRequest(BaseModel):
    """What becomes of a rollout."""

    change: Literal["pause", "resume", "abort"]
    """`abort` withdraws the release and gives devices the one before again, under a new number."""
    percent: int = Field(default=0, ge=0, le=100)
    """With resume: at least to this share at once; 0: where it was."""
    reason: str = Field(default="", max_length=500)
    """Why, for the log of decisions."""


class ChangeView(BaseModel):
    """What has become of a rollout."""

    version: int
    change: str
    runs: int
    """The release that devices run then."""


def make_router(parts: ConsoleParts) -> APIRouter:
    """Return the handlers of the page of rollouts."""
    api = APIRouter(prefix="/rollouts", tags=["rollouts"])

    async def everything(request: Request, session: Viewing) -> RolloutsView:
        under_way = await parts.fleet.rollouts(actor_of(session))

        def look(r: Repository) -> RolloutsView:
            _, devices, _ = r.devices.known_values()
            return RolloutsView(
                rollouts=[_rollout(r, report, parts.context.now()) for report in under_way],
                releases=[_line(release, devices) for release in r.releases.all()[:MOST_RELEASES]],
                step_s=parts.config.rollout_step_s, min_success=parts.config.rollout_min_success,
                max_failures=parts.config.rollout_max_failures, may_operate=may_operate(session),
            )  # fmt: skip

        return await parts.context.read_for_person(actor_of(session), look)

    @api.get("", response_model=RolloutsView, summary="Releases on their way to all devices, and how they do.")
    async def show(request: Request, session: Viewing) -> Response:
        view = await everything(request, session)
        return pages_of(request).answer(request, "rollouts.html", view, session=session)

    @api.get("/events", summary="The rollouts, whenever they change (server-sent events).")
    async def follow(request: Request, session: Viewing) -> Response:
        pages = pages_of(request)

        async def render() -> str:
            return pages.render(request, "rollouts_live.html", await everything(request, session), session)

        return pages.follow(request, session, when_changed(parts, RELEASES, render, again_s=_AGAIN_S))

    @api.post(
        "/{version}", openapi_extra=body_of(ChangeRequest), response_model=ChangeView,
        summary="Pause, resume or abort a rollout.",
    )  # fmt: skip
    async def change(request: Request, version: Annotated[int, Path(ge=1, le=2**53)], session: Changing) -> Response:
        wanted = await read(request, ChangeRequest)
        runs = await parts.fleet.change_rollout(
            actor_of(session), version, wanted.change.upper(), wanted.percent, reason_from(wanted.reason)
        )
        if wants_json(request):
            view = ChangeView(version=version, change=wanted.change, runs=runs)
            return pages_of(request).answer(request, "rollouts.html", view, session=session)
        return RedirectResponse("/rollouts", 303)

    return api


def _rollout(r: Repository, report: RolloutReport, now: datetime) -> RolloutView:
    release, health = report.release, report.health
    rollout = release.rollout
    assert rollout is not None
    decisions = [
        StepView(at=entry.at, by=str(entry.values["actor"]), why=str(entry.values["reason"]))
        for entry in r.log.about(f"rollout/{release.version}/")
    ]
    return RolloutView(
        version=release.version, scope=release.scope, cycle=release.cycle_id, steps=rollout.step_names,
        step=rollout.step, percent=rollout.percent, paused=rollout.paused, waited_s=rollout.waited_s,
        reached=health.reached,
        running=health.running, failed=health.failed, unhealthy=health.unhealthy,
        complaint=health.complaint if health.unhealthy else "", held=health.held, decisions=decisions[::-1],
        health=_points(r.devices.installs_of(release.version), release.created, now),
    )  # fmt: skip


def _points(installs: Sequence[tuple[datetime, str]], begin: datetime, now: datetime) -> list[Point]:
    """Count installations until each of a few moments."""
    begin = min([begin, *(at for at, _ in installs[:1])])
    moments = [begin + (now - begin) * number / _POINTS for number in range(_POINTS + 1)]
    found, installed, failed, place = list[Point](), 0, 0, 0
    for moment in moments:
        while place < len(installs) and installs[place][0] <= moment:
            installed += installs[place][1] == Outcome.INSTALLED.value
            failed += installs[place][1] == Outcome.FAILED.value
            place += 1
        found.append(Point(at=moment, installed=installed, failed=failed))
    return found


def _line(release: Release, devices: dict[int, int]) -> ReleaseLine:
    return ReleaseLine(
        version=release.version, scope=release.scope, status=release.status.value,
        percent=release.rollout.percent if release.rollout else 100, devices=devices.get(release.version, 0),
        cycle=release.cycle_id, created=release.created,
    )  # fmt: skip
