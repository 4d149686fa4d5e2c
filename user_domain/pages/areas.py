"""The page on which zones and masks of a camera are drawn, in the form in which edge nodes read them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, model_validator
from starlette.responses import RedirectResponse, Response

from diredi.errors import InvalidInput, NotFound
from diredi.store.files import atomic_write, read_state
from diredi.web.app import Changing, Viewing, body_of, pages_of, read, wants_json
from diredi.web.sessions import Session
from user_domain.pages.nodes import Nodes

MOST_AREAS: Final = 50
MOST_CORNERS: Final = 100
_BREAKS: Final = set(":,#")
"""What separates settings of a source, so that no class in them may have it."""


def _listed(value: object) -> object:
    given = value if isinstance(value, list) else [value]
    texts = [one for one in given if isinstance(one, str)]
    if len(texts) < len(given):
        return value
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


Share = Annotated[float, Field(ge=0, le=1)]


class Area(BaseModel):
    """A part of a camera's picture: a zone in which objects are counted, or a mask that nobody looks at."""

    kind: Literal["zone", "mask"]
    name: str = Field(default="", max_length=64, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    """Of a zone: letters, digits, and . _ - between them."""
    classes: Annotated[list[str], BeforeValidator(_listed), Field(max_length=50)] = Field(default_factory=list)
    """Of a zone: the only classes that count in it; none: all."""
    corners: Annotated[list[Share], BeforeValidator(_listed), Field(max_length=2 * MOST_CORNERS)]
    """x and y of three corners or more, as shares of width and height."""

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if len(self.corners) < 6 or len(self.corners) % 2:
            raise ValueError("an area has three corners or more, each with x and y")
        if self.kind == "zone" and self.name in ("", "all"):
            raise ValueError("a zone needs a name, and not `all`, which is the whole picture")
        for name in self.classes:
            if _BREAKS & set(name) or not name.isprintable():
                raise ValueError(f"class {name!r} cannot be chosen in a zone: it has one of : , #")
        return self

    @property
    def setting(self) -> str:
        """The area as a setting behind the address of a camera."""
        corners = ",".join(f"{value:.4g}" for value in self.corners)
        if self.kind == "mask":
            return f"#mask={corners}"
        return f"#zone={':'.join(filter(None, (self.name, ','.join(self.classes), corners)))}"


class Removal(BaseModel):
    """Which area to remove."""

    number: int = Field(ge=0)
    """Its place among the areas of the camera, from 0."""


class AreasView(BaseModel):
    """The areas of a camera."""

    node: str
    camera: str
    areas: list[Area]
    setting: str
    """All of them, as they stand behind the address of the camera in the configuration of the edge node."""
    names: list[str]
    """Classes to propose."""


_STORED: Final = TypeAdapter(dict[str, list[Area]])


class AreaStore:
    """The areas of all cameras of a site, in one file."""

    def __init__(self, path: Path) -> None:
        """Read them.

        Args:
            path: The file; it need not exist. A damaged one is set aside.
        """
        self._path, self._lock = path, threading.Lock()
        self._areas = read_state(path, _STORED.validate_json) or {}

    def of(self, node: str, camera: str) -> list[Area]:
        """Return the areas of a camera."""
        return list(self._areas.get(f"{node}/{camera}", ()))

    def put(self, node: str, camera: str, areas: list[Area]) -> None:
        """Set the areas of a camera.

        Raises:
            InvalidInput: There are too many, or two zones of one name.
            NoRoom: The disk is full; what was there stays.
        """
        names = [area.name for area in areas if area.kind == "zone"]
        if len(areas) > MOST_AREAS or len(set(names)) < len(names):
            raise InvalidInput(f"a camera has at most {MOST_AREAS} areas, and each zone has a name of its own")
        with self._lock:
            changed = {**self._areas, f"{node}/{camera}": areas}
            atomic_write(self._path, json.dumps(_STORED.dump_python(changed, mode="json"), indent=1))
            self._areas = changed


def make_router(nodes: Nodes, store: AreaStore, names: Callable[[], list[str]]) -> APIRouter:
    """Return the handlers of the page.

    Args:
        nodes: The edge nodes of the site.
        store: The areas.
        names: Returns classes to propose.
    """
    api = APIRouter(prefix="/areas", tags=["live"])

    def answer(request: Request, session: Session, node: str, camera: str) -> Response:
        nodes.check(node)
        areas = store.of(node, camera)
        view = AreasView(
            node=node, camera=camera, areas=areas, setting="".join(area.setting for area in areas), names=names()
        )
        return pages_of(request).answer(request, "areas.html", view, session=session)

    def done(request: Request, session: Session, node: str, camera: str) -> Response:
        structlog.get_logger().info("areas_changed", node=node, camera=camera, by=session.person)
        if wants_json(request):
            return answer(request, session, node, camera)
        return RedirectResponse(f"/areas/{quote(node, safe='')}/{quote(camera, safe='')}", 303)

    @api.get("/{node}/{camera}", response_model=AreasView, summary="Zones and masks of a camera.")
    async def show(request: Request, node: str, camera: str, session: Viewing) -> Response:
        return answer(request, session, node, camera)

    @api.post(
        "/{node}/{camera}", openapi_extra=body_of(Area), response_model=AreasView, summary="Add a zone or a mask."
    )
    async def add(request: Request, node: str, camera: str, session: Changing) -> Response:
        nodes.check(node)
        area = await read(request, Area)
        store.put(node, camera, [*store.of(node, camera), area])
        return done(request, session, node, camera)

    @api.post(
        "/{node}/{camera}/removals", openapi_extra=body_of(Removal), response_model=AreasView, summary="Remove one."
    )
    async def remove(request: Request, node: str, camera: str, session: Changing) -> Response:
        nodes.check(node)
        number, areas = (await read(request, Removal)).number, store.of(node, camera)
        if number >= len(areas):
            raise NotFound("there is no such area any more: open the page again")
        store.put(node, camera, [area for place, area in enumerate(areas) if place != number])
        return done(request, session, node, camera)

    return api
