"""The pages of samples: what edge nodes handed over, looked at and labelled by people. No picture leaves the site."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, RedirectResponse, Response

from diredi.data.sample_reason import SampleReason
from diredi.web.app import Changing, Viewing, body_of, pages_of, read, wants_json
from diredi.web.sessions import Session
from user_domain.pages.pictures import shrink
from user_domain.samples import MAX_BOXES, Box, Order, SampleInfo, SampleStore
from user_domain.servicer import SiteParts

PAGE = 48
QUEUE = 500
"""So many pictures are lined up to be labelled one after the other."""
State = Literal["new", "labelled", "all"]
_LABELLED: dict[State, bool | None] = {"new": False, "labelled": True, "all": None}
REASONS = {
    SampleReason.UNCERTAIN: "not sure",
    SampleReason.INCONSISTENT: "flickers",
    SampleReason.RARE: "rare class",
    SampleReason.RANDOM: "random",
    SampleReason.DISAGREEMENT: "releases differ",
}


class SamplesView(BaseModel):
    """A page of samples."""

    order: Order
    state: State
    name: str
    page: int
    pages: int
    new: int
    """How many nobody has labelled."""
    labelled: int
    names: list[str]
    """Classes that are detected or labelled on any sample."""
    samples: list[SampleInfo]


class QueueView(BaseModel):
    """Pictures to be labelled one after the other."""

    queue: list[str]
    """Their ids, in order."""
    names: list[str]
    """Class names to propose: those of the data set, those that the cloud knows, and those on samples."""

    def as_json(self, field: str) -> str:
        """Return a field as JSON, for the page's script."""
        return json.dumps(getattr(self, field))


class Labels(BaseModel):
    """All objects on a picture; none says that it shows nothing."""

    boxes: list[Box] = Field(max_length=MAX_BOXES)


class Bulk(BaseModel):
    """What to do with several samples."""

    ids: list[str] = Field(max_length=PAGE)
    action: Literal["accept", "nothing", "unlabel", "discard"]
    back: str = Field(default="/samples", max_length=500)
    """Where a browser goes afterwards; only a place of these pages."""


def make_router(parts: SiteParts) -> APIRouter:
    """Return the handlers of the pages of samples."""
    api = APIRouter(prefix="/samples", tags=["samples"])
    store = parts.samples

    @api.get("", response_model=SamplesView, summary="Samples, newest or most doubtful first.")
    async def show(
        request: Request, session: Viewing, order: Order = "doubtful", state: State = "new",
        name: Annotated[str, Query(max_length=100)] = "", page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    ) -> Response:  # fmt: skip
        found = store.find(order=order, labelled=_LABELLED[state], name=name or None)
        view = SamplesView(
            order=order, state=state, name=name, page=page, pages=max(1, -(-len(found) // PAGE)),
            new=store.count(labelled=False), labelled=store.count(labelled=True), names=store.names(),
            samples=found[(page - 1) * PAGE : page * PAGE],
        )  # fmt: skip
        return pages_of(request).answer(request, "samples.html", view, session=session)

    @api.get("/label", response_model=QueueView, summary="Pictures to be labelled one after the other.")
    async def label(
        request: Request, session: Viewing, order: Order = "doubtful", first: Annotated[str, Query(max_length=64)] = ""
    ) -> Response:
        ids = [info.id for info in store.find(order=order, labelled=False, limit=QUEUE)]
        if first:
            ids = [store.get(first).id, *(other for other in ids if other != first)]
        view = QueueView(queue=ids, names=_names(parts))
        return pages_of(request).answer(request, "label.html", view, session=session)

    @api.get("/{sample}", response_model=SampleInfo, summary="All that is known of a sample.")
    async def get(request: Request, sample: str, session: Viewing) -> Response:
        info = store.get(sample)
        if wants_json(request):
            return JSONResponse(info.model_dump(mode="json"))
        return RedirectResponse(f"/samples/label?first={info.id}", 303)

    @api.get("/{sample}/picture", summary="Its picture, smaller if a width is named.", response_class=Response)
    async def picture(
        sample: str, session: Viewing, width: Annotated[int | None, Query(ge=16, le=4096)] = None
    ) -> Response:
        image, media_type = await asyncio.to_thread(store.image, sample)
        if width is not None:
            image, media_type = await asyncio.to_thread(shrink, image, width), "image/jpeg"
        return Response(image, media_type=media_type)

    @api.post("/{sample}/labels", openapi_extra=body_of(Labels), response_model=SampleInfo, summary="Label a sample.")
    async def set_labels(request: Request, sample: str, session: Changing) -> SampleInfo:
        labels = await read(request, Labels)
        info = await asyncio.to_thread(store.set_labels, sample, labels.boxes, by=session.person)
        _log("labelled", [sample], session, len(labels.boxes))
        return info

    @api.post("/several", openapi_extra=body_of(Bulk), summary="Accept, empty, take back or discard several samples.")
    async def bulk(request: Request, session: Changing) -> Response:
        wanted = await read(request, Bulk)
        if wanted.action == "discard":
            await asyncio.to_thread(parts.deletion.delete, wanted.ids, by=f"{session.person}, by page")
        else:
            for sample in wanted.ids:
                await asyncio.to_thread(_do, store, wanted.action, sample, session)
        _log(wanted.action, wanted.ids, session)
        is_here = wanted.back.startswith("/samples") and not wanted.back.startswith("/samples/several")
        return RedirectResponse(wanted.back if is_here else "/samples", 303)

    return api


def _do(store: SampleStore, action: str, sample: str, session: Session) -> None:
    if action == "unlabel":
        store.clear_labels(sample)
    else:
        store.set_labels(sample, store.get(sample).detections if action == "accept" else (), by=session.person)


def _log(action: str, samples: list[str], session: Session, boxes: int | None = None) -> None:
    structlog.get_logger().info("samples_changed", action=action, samples=samples, by=session.person, boxes=boxes)


def _names(parts: SiteParts) -> list[str]:
    known = parts.worker.known
    return list(dict.fromkeys((*parts.data().names, *parts.samples.names(), *(known.names if known else ()))))
