"""Puts the operator's console together."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import RedirectResponse, Response

from cloud_server.pages import audit, cycles, fleet, models, rollouts, sites
from cloud_server.pages.parts import ConsoleParts
from diredi.web.app import NavItem, Viewing, WebApp

FOLDER = Path(__file__).parent
NAV = (
    NavItem("/fleet", "Fleet"),
    NavItem("/cycles", "Cycles"),
    NavItem("/rollouts", "Rollouts"),
    NavItem("/models", "Models"),
    NavItem("/sites", "Sites"),
    NavItem("/audit", "Audit log"),
)


def make_console(parts: ConsoleParts) -> WebApp:
    """Return the pages of a cloud."""
    command = f"diredi console open --cloud {parts.config.listen} --identity FOLDER"
    pages = WebApp(parts.config.pages, "Console", command, NAV, FOLDER, parts.sent)
    pages.api.add_api_route("/", _start, include_in_schema=False)
    for page in (fleet, cycles, rollouts, models, sites, audit):
        pages.api.include_router(page.make_router(parts))
    return pages


async def _start(session: Viewing) -> Response:
    return RedirectResponse(NAV[0].path, 303)
