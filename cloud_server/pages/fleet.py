"""The page of the fleet: which device runs what, what needs attention, and the history of one device."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from cloud_server import canary
from cloud_server.alarms import Alarm, find_alarms
from cloud_server.entities import Device, Install
from cloud_server.pages import drawings
from cloud_server.pages.parts import ConsoleParts, actor_of
from cloud_server.scopes import scopes_of
from cloud_server.store import Repository
from cloud_server.store.fleet import DeviceQuery, FoundDevice, Trouble
from diredi.errors import NotFound
from diredi.web.app import Viewing, pages_of

PAGE: Final = 100
_SITE_PROBLEMS: Final = {"away": "no frames", "refused": "wrong password", "unreadable": "not readable"}

Number = Annotated[
    Annotated[int, Field(ge=0, le=2**53)] | None, BeforeValidator(lambda value: None if value == "" else value)
]
"""An empty field of a form is no number."""
Sort = Literal["name", "site", "release", "runtime", "seen", "fps", "latency"]
Show = Trouble | Literal["", "healthy"]


class DeviceRow(BaseModel):
    """A device in the list."""

    key: str
    name: str
    site: str
    release: int
    runtime: str
    troubles: list[str]
    frames_per_second: float
    latency_ms: float
    last_seen: datetime


class FleetView(BaseModel):
    """One page of the devices that were asked for."""

    alarms: list[Alarm]
    devices: list[DeviceRow]
    fleet: int
    """Number of devices in the whole fleet."""
    total: int
    """Number of devices that fit the filters."""
    page: int
    pages: int
    filters: dict[str, str]
    sort: str
    descending: bool
    sites: list[str]
    releases: dict[int, int]
    """Number of devices that run each release; 0 is none."""
    runtimes: list[str]
    troubles: list[str] = [trouble.value for trouble in Trouble]
    """What can be wrong with a device, as the filter `state` has it."""

    @property
    def first(self) -> int:
        """Return the number of the first device of this page, from 1."""
        return (self.page - 1) * PAGE + 1

    def url(self, **changes: object) -> str:
        """Return the address of this list with other filters, another order or another page."""
        order = {"sort": self.sort, "descending": "true" if self.descending else ""}
        wanted = self.filters | order | {name: str(value) for name, value in changes.items()}
        return "/fleet?" + urlencode({name: value for name, value in wanted.items() if value})

    def sort_url(self, name: str) -> str:
        """Return the address of this list in the order of a column, or in the opposite order if it has that."""
        return self.url(sort=name, descending="true" if self.sort == name and not self.descending else "")

    def sorted_as(self, name: str) -> str:
        """Return how the list is sorted by a column, as aria-sort says it."""
        if self.sort != name:
            return "none"
        return "descending" if self.descending else "ascending"


class InstallView(BaseModel):
    """One installation of a release, or its failure."""

    release: int
    outcome: str
    reason: str
    at: datetime


class DeviceView(BaseModel):
    """A device with its history."""

    key: str
    name: str
    site: str
    release: int
    wanted: int
    """The release that it should run; 0: none."""
    scope: str
    troubles: list[str]
    runtime: str
    frames: int
    failed_frames: int
    frames_per_second: float
    latency_ms: float
    sources: dict[str, str]
    drifts: dict[str, str]
    """What has changed before a camera and stays so, by source."""
    waits: str
    """Why it waits with a release: held, or window (its site has hours for updates); empty: it does not."""
    certificate_expires: datetime | None
    last_seen: datetime
    now: datetime
    installs: list[InstallView]
    """Newest first."""

    def timeline(self) -> Markup:
        """Return the drawing of which release ran when."""
        spans = [(one.release, one.at, one.outcome == "installed") for one in reversed(self.installs)]
        return drawings.timeline(spans, self.now, f"Releases of {self.name} over time")

    def source_state(self, state: str) -> str:
        """Return what the state of a source means for whoever looks for a fault."""
        return _SITE_PROBLEMS.get(state, state)


def make_router(parts: ConsoleParts) -> APIRouter:
    """Return the handlers of the page of the fleet."""
    api = APIRouter(prefix="/fleet", tags=["fleet"])

    @api.get("", response_model=FleetView, summary="Devices, filtered and sorted, one page at a time.")
    async def show(
        request: Request,
        session: Viewing,
        site: Annotated[str, Query(max_length=100)] = "",
        release: Annotated[Number, Query()] = None,
        runtime: Annotated[str, Query(max_length=200)] = "",
        state: Show = "",
        text: Annotated[str, Query(max_length=100)] = "",
        sort: Sort = "name",
        descending: Annotated[bool, BeforeValidator(lambda value: value or False)] = False,
        page: Annotated[int, Query(ge=1, le=10**6)] = 1,
    ) -> Response:
        trouble = state if isinstance(state, Trouble) else None
        query = DeviceQuery(
            site, release, runtime, trouble, healthy=state == "healthy", text=text, sort=sort, descending=descending
        )
        filters = {"site": site, "release": "" if release is None else str(release), "runtime": runtime, "state": state}
        await parts.fleet.flush()
        now, online = parts.context.now(), set(parts.context.open_streams)

        def read(r: Repository) -> FleetView:
            devices, total = r.devices.search(query, now, (page - 1) * PAGE, PAGE)
            fleet, _ = r.devices.count_troubles(now)
            sites, releases, runtimes = r.devices.known_values()
            return FleetView(
                alarms=find_alarms(r, now, online),
                devices=[_row(device) for device in devices],
                fleet=fleet, total=total, page=page, pages=max(1, -(-total // PAGE)),
                filters=filters | {"text": text}, sort=sort, descending=descending,
                sites=sites, releases=releases, runtimes=runtimes,
            )  # fmt: skip

        view = await parts.context.read_for_person(actor_of(session), read)
        return pages_of(request).answer(request, "fleet.html", view, session=session)

    @api.get("/devices/{key:path}", response_model=DeviceView, summary="One device: what ran on it, and when.")
    async def device(request: Request, key: str, session: Viewing) -> Response:
        await parts.fleet.flush()
        now = parts.context.now()

        def read(r: Repository) -> DeviceView:
            found = r.devices.find(key)
            if found is None:
                raise NotFound(f"there is no device {key[:100]!r}: the page Fleet lists them all")
            return _view(r, found, now)

        view = await parts.context.read_for_person(actor_of(session), read)
        return pages_of(request).answer(request, "device.html", view, session=session)

    return api


def _row(device: FoundDevice) -> DeviceRow:
    return DeviceRow(
        key=device.key, name=device.name, site=device.site, release=device.release_version, runtime=device.runtime,
        troubles=[trouble.value for trouble in device.troubles], frames_per_second=device.frames_per_second,
        latency_ms=device.latency_ms, last_seen=device.last_seen,
    )  # fmt: skip


def _view(r: Repository, device: Device, now: datetime) -> DeviceView:
    releases, group = r.releases.all(), r.groups.of_site(device.site)
    wanted = canary.select_release(device.key, releases, scopes_of(device.site, group))
    installs = [_install(install) for install in reversed(device.installs)]
    return DeviceView(
        key=device.key, name=device.name, site=device.site, release=device.release_version,
        wanted=wanted.version if wanted else 0,
        scope=next((release.scope for release in releases if release.version == device.release_version), ""),
        troubles=[trouble.value for trouble in r.devices.troubles_of(device.key, now)], runtime=device.runtime,
        frames=device.frames, failed_frames=device.failed_frames, frames_per_second=device.frames_per_second,
        latency_ms=device.latency_ms, sources={name: state.value for name, state in device.sources.items()},
        drifts=device.drifts, waits=device.update_wait.value,
        certificate_expires=device.certificate_expires, last_seen=device.last_seen, now=now, installs=installs,
    )  # fmt: skip


def _install(install: Install) -> InstallView:
    return InstallView(
        release=install.release_version, outcome=install.outcome.value, reason=install.reason, at=install.at
    )
