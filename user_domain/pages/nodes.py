"""Asks the web servers of the site's edge nodes, so that browsers see the cameras through the site alone."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ValidationError

from diredi.errors import NotFound, Unreachable
from diredi.text import printable

TIMEOUT_S: Final = 3.0
MAX_BYTES: Final = 8 * 2**20
EVENTS: Final = 8
_FRAMES: Final = re.compile(r'^diredi_edge_frames_total\{camera="((?:[^"\\]|\\.)*)"\} ([0-9.e+]+)$', re.MULTILINE)


class CameraView(BaseModel):
    """One camera of an edge node."""

    name: str
    state: str
    frames_per_second: float | None
    """How many frames were looked at a second since it was asked last; None at first."""


class EventView(BaseModel):
    """One thing that an edge node has seen."""

    id: str
    type: str
    class_name: str
    camera: str
    confidence: float
    seen: datetime


class NodeView(BaseModel):
    """One edge node, as its own web server tells."""

    name: str
    problem: str
    """Why nothing is known of it, or what is wrong with it."""
    answers: bool
    status: str
    release: int
    cameras: list[CameraView]
    events: list[EventView]


class Nodes:
    """The edge nodes of a site that have a web server."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        """Know them by name, with the URL of the web server of each."""
        self._addresses = dict(addresses)
        self._frames: dict[tuple[str, str], tuple[float, float]] = {}

    async def all(self) -> list[NodeView]:
        """Ask all of them at once; one that does not answer says why."""
        return list(await asyncio.gather(*(self._ask(name) for name in self._addresses)))

    async def picture(self, node: str, camera: str) -> bytes:
        """Return the last picture of a camera as JPEG.

        Raises:
            NotFound: There is no such node or camera.
            Unreachable: The node does not answer, or has no picture yet.
        """
        self.check(node)
        return await self._get(node, f"/cameras/{quote(camera, safe='')}/picture.jpg", {200})

    def check(self, node: str) -> None:
        """Raise NotFound unless there is such an edge node."""
        if node not in self._addresses:
            raise NotFound(f"there is no edge node {node[:64]!r} in `nodes`")

    async def _ask(self, name: str) -> NodeView:
        try:
            health, events, metrics = await asyncio.gather(
                self._get(name, "/healthz", {200, 503}), self._get(name, f"/events?limit={EVENTS}", {200}),
                self._get(name, "/metrics", {200}),
            )  # fmt: skip
            said = json.loads(health)
            rates = self._rates(name, metrics.decode(errors="replace"))
            return NodeView(
                name=name, problem=printable(str(said["problem"])), answers=True, status=str(said["status"]),
                release=said["release"],
                cameras=[
                    CameraView(name=printable(camera), state=str(state), frames_per_second=rates.get(camera))
                    for camera, state in dict(said["cameras"]).items()
                ],
                events=[
                    EventView(**{**event, "class_name": event["class"]}) for event in json.loads(events)["events"]
                ],
            )  # fmt: skip
        except (Unreachable, NotFound) as error:
            problem = str(error)
        except (ValueError, KeyError, TypeError, ValidationError):
            problem = f"what answers at {self._addresses[name]} is no edge node of this version"
        return NodeView(name=name, problem=problem, answers=False, status="", release=0, cameras=[], events=[])

    def _rates(self, node: str, metrics: str) -> dict[str, float]:
        now, rates = time.monotonic(), {}
        for camera, count in _FRAMES.findall(metrics):
            before = self._frames.get((node, camera))
            if before is not None and now > before[0]:
                rates[camera] = max(0.0, float(count) - before[1]) / (now - before[0])
            if before is None or now - before[0] > 5 or float(count) < before[1]:
                self._frames[node, camera] = now, float(count)
        return rates

    async def _get(self, node: str, path: str, statuses: set[int]) -> bytes:
        return await asyncio.to_thread(self._fetch, node, path, statuses)

    def _fetch(self, node: str, path: str, statuses: set[int]) -> bytes:
        address = urlsplit(self._addresses[node])
        connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            data = answer.read(MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise Unreachable(f"edge node {node} does not answer at {self._addresses[node]} ({why})") from None
        finally:
            connection.close()
        if answer.status not in statuses or len(data) > MAX_BYTES:
            raise Unreachable(f"edge node {node} answers {answer.status} to {path}: look at its log")
        return data
