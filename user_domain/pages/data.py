"""The page of the private data set: its classes, its split, its pictures, and what is doubtful in it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from diredi.data.dataset import Sample, Split
from diredi.errors import NotFound
from diredi.web.app import Viewing, pages_of
from user_domain.pages.pictures import shrink
from user_domain.pages.private_set import PrivateSet, newest_audit
from user_domain.servicer import SiteParts
from user_domain.task_handlers import SiteContext

PAGE = 24
MOST_BARS = 24
AUDIT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
"""The page of doubtful labels is one file with its pictures in it, as it is made for a disk."""


class ClassView(BaseModel):
    """One class of the data set."""

    name: str
    train: int
    """Boxes to learn from."""
    val: int
    """Boxes to measure on."""


class DataView(BaseModel):
    """The private data set."""

    path: str
    train_images: int
    held_out_images: int
    bytes: int
    classes: list[ClassView]
    notes: list[str]
    twice: list[list[str]]
    """Names of files with the same bytes, in groups."""
    in_both: int
    """How many of these groups are learned from and measured on."""
    audited: datetime | None
    """When the last training has looked for doubtful labels."""
    samples_labelled: int
    """Samples that people have labelled; they join the set when it is read again, for the next cycle."""

    def columns(self) -> list[tuple[str, dict[str, float]]]:
        """Return the bars of the chart: a class, and its boxes by split."""
        return [(one.name, {"train": one.train, "val": one.val}) for one in self.classes[:MOST_BARS]]


class BoxView(BaseModel):
    """A box, as shares of the picture."""

    name: str
    x: float
    y: float
    width: float
    height: float


class PictureView(BaseModel):
    """One picture of the set."""

    number: int
    file: str
    boxes: list[BoxView]


class PicturesView(BaseModel):
    """A page of pictures."""

    split: Split
    name: str
    page: int
    pages: int
    names: list[str]
    pictures: list[PictureView]


def make_router(parts: SiteParts, site: SiteContext) -> APIRouter:
    """Return the handlers of the page of the private data set."""
    api = APIRouter(prefix="/data", tags=["data"])
    private = PrivateSet(parts.data)

    @api.get("", response_model=DataView, summary="The private data set: classes, split, and what is doubtful in it.")
    async def show(request: Request, session: Viewing) -> Response:
        view = await asyncio.to_thread(_describe, parts, private, site.jobs)
        return pages_of(request).answer(request, "data.html", view, session=session)

    @api.get("/pictures", response_model=PicturesView, summary="Its pictures with their labels.")
    async def pictures(
        request: Request, session: Viewing, split: Split = "train",
        name: Annotated[str, Query(max_length=100)] = "", page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    ) -> Response:  # fmt: skip
        view = await asyncio.to_thread(_page, private, split, name, page)
        return pages_of(request).answer(request, "pictures.html", view, session=session)

    @api.get("/pictures/{split}/{number}", summary="One picture, smaller if a width is named.", response_class=Response)
    async def picture(
        split: Split, number: int, session: Viewing, width: Annotated[int, Query(ge=16, le=4096)] = 1280
    ) -> Response:
        sample = (await asyncio.to_thread(private.read)).sample(split, number)
        return Response(await asyncio.to_thread(_picture, sample.image, width), media_type="image/jpeg")

    @api.get("/doubtful", summary="The page of doubtful labels of the last training.", response_class=Response)
    async def doubtful(session: Viewing) -> Response:
        found = newest_audit(site.jobs)
        if found is None:
            raise NotFound("no training has looked for doubtful labels yet, or its files were deleted since")
        return FileResponse(found, headers={"content-security-policy": AUDIT_POLICY, "cache-control": "no-store"})

    @api.get("/samples.zip", summary="The samples that people have labelled, in YOLO format.", response_class=Response)
    async def export(session: Viewing) -> Response:
        folder = Path(tempfile.mkdtemp(prefix="diredi-export-"))
        forget = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        if await asyncio.to_thread(parts.samples.export, folder / "samples") is None:
            shutil.rmtree(folder, ignore_errors=True)
            raise NotFound("no sample is labelled yet: label some under To look at")
        file = await asyncio.to_thread(shutil.make_archive, str(folder / "export"), "zip", folder / "samples")
        structlog.get_logger().info("samples_exported", by=session.person)
        return FileResponse(file, filename=f"{parts.site}-labelled.zip", background=forget)

    return api


def _describe(parts: SiteParts, private: PrivateSet, jobs: Path) -> DataView:
    known, found, audit = parts.data(), private.read(), newest_audit(jobs)
    train, val = found.data.counts("train"), found.data.counts("val")
    return DataView(
        path=str(known.path),
        train_images=known.train_images,
        held_out_images=known.held_out_images,
        bytes=known.bytes,
        classes=[ClassView(name=name, train=train[name], val=val[name]) for name in found.data.names],
        notes=list(known.notes),
        twice=[[path.name for path in group] for group in found.twice[:50]],
        in_both=found.in_both,
        audited=datetime.fromtimestamp(audit.stat().st_mtime, UTC) if audit else None,
        samples_labelled=parts.samples.count(labelled=True),
    )


def _page(private: PrivateSet, split: Split, name: str, page: int) -> PicturesView:
    data = private.read().data
    wanted = data.names.index(name) if name in data.names else None
    numbered = [
        (number, sample)
        for number, sample in enumerate(data.split(split))
        if wanted is None or (sample.boxes[:, 0] == wanted).any()
    ]
    return PicturesView(
        split=split, name=name, page=page, pages=max(1, -(-len(numbered) // PAGE)), names=list(data.names),
        pictures=[
            PictureView(number=number, file=sample.image.name, boxes=_boxes(sample, data.names))
            for number, sample in numbered[(page - 1) * PAGE : page * PAGE]
        ],
    )  # fmt: skip


def _boxes(sample: Sample, names: tuple[str, ...]) -> list[BoxView]:
    return [
        BoxView(name=names[int(row[0])], x=float(row[1]), y=float(row[2]), width=float(row[3]), height=float(row[4]))
        for row in sample.boxes
    ]


def _picture(path: Path, width: int) -> bytes:
    try:
        return shrink(path.read_bytes(), width)
    except OSError:
        raise NotFound("that picture is gone from the disk: open the page again") from None
