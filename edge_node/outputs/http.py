"""A small web server on the node: live pictures, events, health and metrics. It changes nothing and has no password."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator

import structlog
from prometheus_client.core import Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diredi.errors import DirediError, InvalidInput, WrongState
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.retry import Backoff
from diredi.web.hosts import REFUSAL, is_local_name
from diredi.web.server import listen, serve, url_of
from edge_node.camera import SourceState
from edge_node.inference import Result
from edge_node.outputs.events import RECENT, EventFeed
from edge_node.outputs.metrics import CONTENT_TYPE, NodeMetrics
from edge_node.outputs.picture import picture_of
from edge_node.servicer import NodeParts

CONNECTIONS = 64
"""The most connections at a time; further ones are answered with 503."""
BOUNDARY = "frame"
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'self'",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
"""Keep pictures out of caches and out of the pages of others."""
KINDS = {"live": "picture", "picture.jpg": "picture", "events": "events", "metrics": "metrics"}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:16px system-ui,sans-serif;margin:2rem}}img{{max-width:100%;display:block}}</style>
<h1>{title}</h1>
{cameras}
<p><a href="events">events</a> · <a href="healthz">health</a> · <a href="metrics">metrics</a></p>
</html>
"""


class HttpOutput:
    """Serve what a node sees over HTTP."""

    def __init__(self, address: tuple[str, int], node: NodeParts, feed: EventFeed) -> None:
        """Make a server; `run` starts it.

        Args:
            address: Host and port to listen at.
            node: The parts of the node.
            feed: Has the last frames and events.
        """
        self._address, self._node, self._feed = address, node, feed
        self._metrics = NodeMetrics(node)
        self._jpegs: dict[str, tuple[int, bytes]] = {}
        self._drawing = asyncio.Lock()
        self.problem = ""
        """Why nothing is served; empty as a rule."""
        app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/cameras/{camera}/live", self._live),
                Route("/cameras/{camera}/picture.jpg", self._picture),
                Route("/events", self._events),
                Route("/healthz", self._health),
                Route("/metrics", self._figures),
            ],
            exception_handlers={DirediError: _explain},
        )
        self._app = _Guard(app, node.meter)

    async def run(self) -> None:
        """Serve, for ever; an address that cannot be had is tried again and again."""
        backoff, log = Backoff(1.0, 60.0), structlog.get_logger()
        while True:
            try:
                listening = listen(*self._address, "--http")
            except WrongState as error:
                if str(error) != self.problem:
                    log.warning("web_server_failed", error=str(error))
                self.problem = str(error)
                await asyncio.sleep(backoff.next_s())
                continue
            self.problem = ""
            backoff.reset()
            log.info("web_server_started", url=url_of(listening))
            with listening:
                await serve(self._app, listening, CONNECTIONS)

    async def _page(self, _request: Request) -> Response:
        names = [html.escape(name) for name in self._feed.scenes]
        cameras = "\n".join(f'<h2>{name}</h2><img src="cameras/{name}/live" alt="live: {name}">' for name in names)
        return HTMLResponse(PAGE.format(title=html.escape(self._node.device), cameras=cameras))

    async def _live(self, request: Request) -> Response:
        camera = self._camera(request)
        return StreamingResponse(self._parts(camera), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")

    async def _parts(self, camera: str) -> AsyncIterator[bytes]:
        """Yield the pictures of a camera, from the last one on, until it ends."""
        if (last := self._feed.scenes[camera].result) is not None:
            yield _part(await self._jpeg(last))
        async for result in self._node.broadcast.results():
            if result.camera == camera:
                yield _part(await self._jpeg(result))

    async def _picture(self, request: Request) -> Response:
        camera = self._camera(request)
        last = self._feed.scenes[camera].result
        if last is None:
            return PlainTextResponse(f"camera {camera} has given no picture yet: try again\n", 503)
        return Response(await self._jpeg(last), media_type="image/jpeg")

    def _camera(self, request: Request) -> str:
        name = str(request.path_params["camera"])
        if name not in self._feed.scenes:
            raise InvalidInput(f"there is no such camera: it is one of {', '.join(self._feed.scenes)}")
        return name

    async def _jpeg(self, result: Result) -> bytes:
        """Return a frame with its boxes, drawn once for all who want it."""
        async with self._drawing:
            number, jpeg = self._jpegs.get(result.camera, (0, b""))
            if number != result.number:
                jpeg = await asyncio.to_thread(picture_of, result)
                self._jpegs[result.camera] = (result.number, jpeg)
            return jpeg

    async def _events(self, request: Request) -> Response:
        limit, camera = request.query_params.get("limit", "100"), request.query_params.get("camera")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= RECENT):
            raise InvalidInput(f"limit is the number of events: 1 to {RECENT}")
        found = [event.to_json() for event in reversed(self._feed.recent) if camera in (None, event.camera)]
        return JSONResponse({"events": found[: int(limit)]})

    async def _health(self, _request: Request) -> Response:
        """Answer 200 while the node detects: it has a release, and a camera that gives frames."""
        node = self._node
        states = {camera.name: camera.state for camera in node.inference.cameras}
        detects = node.active.current is not None and SourceState.OK in states.values()
        found = {
            "status": "ok" if detects else "not detecting",
            "problem": node.last_error,
            "release": node.active.current.release.version if node.active.current else 0,
            "cameras": {name: state.value for name, state in states.items()},
        }
        return JSONResponse(found, 200 if detects else 503)

    async def _figures(self, _request: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    def metrics(self) -> list[Metric]:
        """Return no figures: bytes are counted by the meter."""
        return []


class _Guard:
    """Answer only who asks for this machine, say what browsers may do with the answer, and count it."""

    def __init__(self, app: ASGIApp, meter: EgressMeter) -> None:
        self._app, self._meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        last = scope["path"].rpartition("/")[2]
        kind = f"http/{KINDS.get(last, 'other')}"

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            elif message.get("body"):
                self._meter.count(kind, len(message["body"]))
            await send(message)

        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        app: ASGIApp = self._app if is_local_name(host) else PlainTextResponse(REFUSAL, 421)
        await app(scope, receive, send_counted)


def _part(jpeg: bytes) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + b"\r\n"


async def _explain(_request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 400)
