"""Puts the site's web pages together."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import RedirectResponse, Response

from diredi.rpc.byte_counter import EgressMeter
from diredi.web.app import NavItem, Viewing, WebApp
from user_domain.config import UserDomainConfig
from user_domain.pages import areas, comparisons, cycles, data, live, samples, sent
from user_domain.pages.nodes import Nodes
from user_domain.servicer import SiteParts
from user_domain.task_handlers import SiteContext

FOLDER = Path(__file__).parent
NAV = (
    NavItem("/cycles", "Cycles"),
    NavItem("/samples", "To look at"),
    NavItem("/data", "Data"),
    NavItem("/live", "Live"),
    NavItem("/sent", "What left"),
)


def make_pages(config: UserDomainConfig, parts: SiteParts, site: SiteContext, shown: EgressMeter) -> WebApp:
    """Return the pages of a site.

    Args:
        config: Of the user domain.
        parts: Its parts.
        site: What its tasks are performed with.
        shown: Counts what browsers were shown.
    """
    command = f"diredi site open {config.listen} --identity FOLDER"  # a stranger may read it
    pages = WebApp(config.pages, config.site, command, NAV, FOLDER, shown)
    pages.heading = lambda: {"cloud connected" if parts.cloud.online else "cloud away": parts.cloud.online}
    pages.api.add_api_route("/", _start, include_in_schema=False)
    pages.api.include_router(cycles.make_router(parts, site))
    comparing = comparisons.Comparisons(parts, site, config.quantise_confidence)
    pages.api.include_router(comparisons.make_router(comparing))
    pages.api.include_router(samples.make_router(parts))
    pages.provide(reasons=samples.REASONS, whole="{:,.0f}".format, keep_days=config.max_sample_days)
    pages.api.include_router(data.make_router(parts, site))
    pages.uploads["/data/import"] = data.MAX_ARCHIVE_BYTES
    nodes = Nodes(config.nodes)
    pages.api.include_router(live.make_router(nodes))
    stored = areas.AreaStore(config.state_dir / "areas.json")
    pages.api.include_router(areas.make_router(nodes, stored, lambda: list(parts.data().names)))
    pages.api.include_router(sent.make_router(parts, shown))
    return pages


async def _start(session: Viewing) -> Response:
    return RedirectResponse(NAV[0].path, 303)
