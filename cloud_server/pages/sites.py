"""The pages of sites: what the cloud knows of each, its last cycles and quotas, and who joins or leaves the fleet."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

import segno
from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from cloud_server.pages.cycles import CycleLine, line_of
from cloud_server.pages.parts import ConsoleParts, actor_of, may_administer, may_operate
from cloud_server.sites.service import SiteView
from cloud_server.store import Repository
from diredi.web.app import Changing, Viewing, body_of, pages_of, read, wants_json

PAGE: Final = 100
_CYCLES: Final = 10
_LONGEST_DAYS: Final = 30


class SiteLine(BaseModel):
    """A site in the list."""

    name: str
    online: bool
    last_seen: datetime
    approves_itself: bool
    """Whether it agrees to cycles by its own policy; else its people, or its bounds, are asked."""
    group: str
    devices: int
    cycle: str
    """The cycle that it takes part in now; empty: none."""


class SitesView(BaseModel):
    """Sites that have ever called, by name."""

    sites: list[SiteLine]
    next: str
    """The name after which the next page begins; empty: this is the last."""
    can_enrol: bool
    """Whether the person is an admin and the cloud has an authority to sign with."""
    cloud: str
    """The cloud's host:port, as this page was asked for."""


class Quota(BaseModel):
    """How much of something a site has used."""

    name: str
    used: int
    most: int


class SiteWhole(BaseModel):
    """One site, whole."""

    site: SiteLine
    quotas: list[Quota]
    arrived_bytes: int
    cycles: list[CycleLine]
    """The last ones, newest first."""
    may_operate: bool
    can_enrol: bool


class TokenRequest(BaseModel):
    """Whom a token is for."""

    identity: str = Field(max_length=150)
    """Such as site/NAME, device/SITE/NAME, operator/NAME."""
    hosts: str = Field(default="", max_length=1000)
    """DNS names and addresses at which it will be reached, with commas between."""
    cloud: str = Field(default="", max_length=300)
    """The cloud's host:port, as it is reached from there; empty: at the name by which this page was asked for."""
    days: int = Field(default=1, ge=1, le=_LONGEST_DAYS)
    """For how many days the token works."""


class TokenView(BaseModel):
    """A token. Whoever has it can enrol in the place of its identity, once."""

    identity: str
    token: str
    expires: datetime

    def code(self) -> Markup:
        """Return the token as a QR code."""
        code = segno.make_qr(self.token, error="l")
        return Markup(code.svg_inline(omitsize=True, svgclass="qr", lineclass=None, border=4))


class RetireRequest(BaseModel):
    """Who leaves the fleet."""

    confirm: str = Field(max_length=150)
    """The identity once more, so that nobody is retired by a slip."""


class RetiredView(BaseModel):
    """Who has been retired."""

    identities: list[str]


def make_router(parts: ConsoleParts) -> APIRouter:
    """Return the handlers of the pages of sites."""
    api = APIRouter(tags=["sites"])

    @api.get("/sites", response_model=SitesView, summary="Sites that have ever called, one page at a time.")
    async def show(
        request: Request, session: Viewing, after: Annotated[str, Query(max_length=100)] = ""
    ) -> Response:  # fmt: skip
        found = await parts.sites.list_sites(actor_of(session), after, PAGE + 1)
        view = SitesView(
            sites=[_line(one) for one in found[:PAGE]], next=found[PAGE - 1].site.name if len(found) > PAGE else "",
            can_enrol=may_administer(session) and parts.enrolment.can_sign, cloud=_address(parts, request),
        )  # fmt: skip
        return pages_of(request).answer(request, "sites.html", view, session=session)

    @api.get("/sites/{name:path}", response_model=SiteWhole, summary="One site: policy, quotas, last cycles.")
    async def one(request: Request, name: str, session: Viewing) -> Response:
        actor, quotas = actor_of(session), parts.context.quotas
        site = await parts.sites.get_site(actor, name)
        cycles = await parts.cycles.recent(actor, name, _CYCLES)
        arrived = sum(parts.meter.totals(f"site/{name}").values())

        def look(r: Repository) -> list[Quota]:
            proposed = r.classes.count_proposed(name)
            return [Quota(name="new class names", used=proposed, most=quotas.classes_per_site)]

        view = SiteWhole(
            site=_line(site), quotas=await parts.context.read_for_person(actor, look), arrived_bytes=arrived,
            cycles=[line_of(cycle) for cycle in cycles], may_operate=may_operate(session),
            can_enrol=may_administer(session) and parts.enrolment.can_sign,
        )  # fmt: skip
        return pages_of(request).answer(request, "site.html", view, session=session)

    @api.post(
        "/tokens", openapi_extra=body_of(TokenRequest), response_model=TokenView,
        summary="Make a token with which a site, a device or a person enrols, once.",
    )  # fmt: skip
    async def enrol(request: Request, session: Changing) -> Response:
        wanted = await read(request, TokenRequest)
        identity = wanted.identity.strip()
        hosts = [host.strip() for host in wanted.hosts.split(",") if host.strip()]
        made = await parts.enrolment.create_token(actor_of(session), identity, hosts, timedelta(days=wanted.days))
        token = parts.enrolment.token_of(made, wanted.cloud.strip() or _address(parts, request))
        view = TokenView(identity=identity, token=token.encode(), expires=made.expires)
        return pages_of(request).answer(request, "token.html", view, session=session)

    @api.post(
        "/retired/{identity:path}", openapi_extra=body_of(RetireRequest), response_model=RetiredView,
        summary="Revoke all that was signed for a device, a site with its devices, or a person.",
    )  # fmt: skip
    async def retire(request: Request, identity: str, session: Changing) -> Response:
        wanted = await read(request, RetireRequest)
        retired = await parts.enrolment.retire(actor_of(session), identity, wanted.confirm)
        if wants_json(request):
            view = RetiredView(identities=[str(one) for one in retired])
            return pages_of(request).answer(request, "sites.html", view, session=session)
        return RedirectResponse("/sites", 303)

    return api


def _address(parts: ConsoleParts, request: Request) -> str:
    return f"{request.url.hostname}:{parts.config.listen.rpartition(':')[2]}"


def _line(view: SiteView) -> SiteLine:
    return SiteLine(
        name=view.site.name, online=view.online, last_seen=view.site.last_seen, group=view.group,
        approves_itself=view.site.auto_approve, devices=view.devices, cycle=view.cycle_id,
    )  # fmt: skip
