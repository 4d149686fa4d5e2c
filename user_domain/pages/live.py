"""The page of what the site's cameras see now."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import HTMLResponse, Response

from diredi.web.app import Viewing, pages_of
from user_domain.pages.nodes import Nodes, NodeView


class LiveView(BaseModel):
    """What the edge nodes of this site do now."""

    nodes: list[NodeView]
    at: int
    """When they were asked, in seconds since 1970: it makes browsers fetch new pictures."""


def make_router(nodes: Nodes) -> APIRouter:
    """Return the handlers of the page of what cameras see now."""
    api = APIRouter(prefix="/live", tags=["live"])

    @api.get("", response_model=LiveView, summary="What the edge nodes of this site do now.")
    async def show(request: Request, session: Viewing) -> Response:
        return pages_of(request).answer(request, "live.html", await _now(nodes), session=session)

    @api.get("/now", summary="The same as a piece of the page.", response_class=HTMLResponse)
    async def now(request: Request, session: Viewing) -> Response:
        return HTMLResponse(pages_of(request).render(request, "live_now.html", await _now(nodes), session))

    @api.get("/{node}/{camera}/picture", summary="The last picture of a camera, with boxes.", response_class=Response)
    async def picture(node: str, camera: str, session: Viewing) -> Response:
        return Response(await nodes.picture(node, camera), media_type="image/jpeg")

    return api


async def _now(nodes: Nodes) -> LiveView:
    return LiveView(nodes=await nodes.all(), at=int(time.time()))
