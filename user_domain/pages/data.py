"""The page of the private data set: its classes, its split, its pictures, and what is doubtful in it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator, Field
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from diredi.data.annotation_formats import Format, write_files
from diredi.data.archive import zip_pieces
from diredi.data.dataset import SPLITS, Dataset, Sample, Split, load
from diredi.errors import InvalidInput, NotFound, WrongState
from diredi.store.files import no_room_at
from diredi.web.app import Changing, Viewing, body_of, pages_of, read, wants_json
from user_domain.consent import NO_CYCLE
from user_domain.data_import import CAMERA, import_archive
from user_domain.pages.pictures import shrink
from user_domain.pages.private_set import PrivateSet, newest_audit
from user_domain.samples import SampleInfo
from user_domain.servicer import SiteParts
from user_domain.task_handlers import SiteContext

PAGE = 24
MOST_DELETIONS = 200
MAX_ARCHIVE_BYTES = 2 << 30
ARCHIVE = {"requestBody": {"required": True, "content": {"application/zip": {"schema": {"format": "binary"}}}}}
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


class ImportedView(BaseModel):
    """What became of an archive."""

    format: Format
    added: int
    relabelled: int
    """Samples that were here already, whose labels are now those of the archive."""
    left_out: list[str]
    """What was not taken and why."""
    problem: str
    """Why it ended before its end; empty as a rule."""


Labelled = Literal["all", "yes", "no"]
Before = Annotated[date | None, BeforeValidator(lambda value: value or None)]
"""A day; forms send an empty one for none."""


class Choice(BaseModel):
    """Which frames to delete; all conditions hold."""

    camera: str = Field(default="", max_length=64)
    """Only those of a camera; empty for all."""
    before: Before = None
    """Only those that were taken before this day (UTC)."""
    labelled: Labelled = "all"


class Deleting(Choice):
    """A choice that somebody has looked at and wants to be deleted."""

    count: int = Field(ge=1)
    """How many frames were shown to be chosen; where it is another number now, nothing is deleted."""
    reason: str = Field(default="", max_length=500)


class DeletionView(BaseModel):
    """An entry of the site's journal that says what was deleted."""

    at: datetime
    by: str
    reason: str
    samples: list[str]
    """SHA-256 of each picture."""
    remaining: int
    """How many of them are still on the disk, looked up now."""


class DeletionsView(BaseModel):
    """What was deleted, newest first."""

    choice: Choice
    count: int
    """How many frames the choice names; 0 where none is made."""
    cameras: list[str]
    deletions: list[DeletionView]


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

    @api.get("/export", summary="The data set as a zip file of another tool's format.", response_class=Response)
    async def export(
        session: Viewing, form: Annotated[Format, Query(alias="format")] = "yolo",
        of: Literal["samples", "all"] = "samples",
    ) -> Response:  # fmt: skip
        folder = Path(tempfile.mkdtemp(prefix="diredi-export-"))
        forget = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        try:
            data = await asyncio.to_thread(_exported, parts, private, of, folder / "samples")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        structlog.get_logger().info("samples_exported", by=session.person, format=form, of=of)
        headers = {"content-disposition": f'attachment; filename="{parts.site}-{of}-{form}.zip"'}
        pieces = zip_pieces(write_files(data, form))
        return StreamingResponse(pieces, media_type="application/zip", headers=headers, background=forget)

    importing = asyncio.Lock()

    @api.post(
        "/import", response_model=ImportedView, openapi_extra=ARCHIVE,
        summary="Take pictures with labels from a zip file of another tool, which is the body of the request.",
    )  # fmt: skip
    async def take(
        request: Request, session: Changing, camera: Annotated[str, Query(max_length=64)] = CAMERA
    ) -> Response:
        if importing.locked():
            raise WrongState("another import is under way: wait for its end")
        async with importing:
            with tempfile.TemporaryDirectory(prefix="import-", dir=site.jobs.parent) as folder:
                path = Path(folder) / "archive"
                await _receive(request, path)
                done = await asyncio.to_thread(
                    import_archive, path, parts.samples, by=session.person, camera=camera,
                    private=await asyncio.to_thread(lambda: private.read().digests),
                )  # fmt: skip
        view = ImportedView(**vars(done))
        structlog.get_logger().info("samples_imported", by=session.person, **view.model_dump(exclude={"left_out"}))
        return pages_of(request).answer(request, "imported.html", view, session=session)

    @api.get("/deletions", response_model=DeletionsView, summary="What was deleted, and what a choice would delete.")
    async def deletions(
        request: Request, session: Viewing, camera: Annotated[str, Query(max_length=64)] = "",
        before: Before = None, labelled: Labelled = "all",
    ) -> Response:  # fmt: skip
        view = await asyncio.to_thread(_deletions, parts, Choice(camera=camera, before=before, labelled=labelled))
        return pages_of(request).answer(request, "deletions.html", view, session=session)

    @api.get("/deletions.jsonl", summary="The signed entries of the journal that prove it.", response_class=Response)
    async def proof(session: Viewing) -> Response:
        headers = {"content-disposition": f'attachment; filename="{parts.site}-deletions.jsonl"'}
        text = await asyncio.to_thread(parts.consent.journal.lines, NO_CYCLE, "deleted")
        return Response(text, media_type="application/x-ndjson", headers=headers)

    @api.post(
        "/deletions", openapi_extra=body_of(Deleting), response_model=DeletionsView,
        summary="Delete the frames that a choice names, for good.",
    )  # fmt: skip
    async def delete(request: Request, session: Changing) -> Response:
        wanted = await read(request, Deleting)
        ids = [info.id for info in await asyncio.to_thread(_chosen, parts, wanted)]
        if len(ids) != wanted.count:
            raise WrongState(
                f"the choice is {len(ids)} frames now and was {wanted.count} when it was shown: look again"
            )
        by = f"{session.person}, by page"
        await asyncio.to_thread(parts.deletion.delete, ids, by=by, reason=wanted.reason)
        if wants_json(request):
            view = await asyncio.to_thread(_deletions, parts, Choice())
            return pages_of(request).answer(request, "deletions.html", view, session=session)
        return RedirectResponse("/data/deletions", 303)

    return api


def _exported(parts: SiteParts, private: PrivateSet, of: str, folder: Path) -> Dataset:
    if of == "all":
        found = private.read().data
        if not found.train and not found.val:
            raise NotFound("this site has no data set yet")
        return found
    made = parts.samples.export(folder)
    if made is None:
        raise NotFound("no sample is labelled yet: label some under To look at")
    return load(made, [split for split in SPLITS if any((folder / "images" / split).iterdir())], labelled=False)


async def _receive(request: Request, path: Path) -> None:
    """Write what a request brings along into a file."""
    try:
        with no_room_at(path), path.open("wb") as file:
            async for piece in request.stream():
                await asyncio.to_thread(file.write, piece)
    except ClientDisconnect:
        raise InvalidInput(f"the file did not arrive whole: it has at most {MAX_ARCHIVE_BYTES >> 20} MiB") from None


def _chosen(parts: SiteParts, choice: Choice) -> list[SampleInfo]:
    labelled = {"all": None, "yes": True, "no": False}[choice.labelled]
    found = parts.samples.find(camera=choice.camera or None, labelled=labelled)
    return [info for info in found if choice.before is None or info.taken.date() < choice.before]


def _deletions(parts: SiteParts, choice: Choice) -> DeletionsView:
    entries = parts.deletion.entries()
    is_made = choice != Choice()
    return DeletionsView(
        choice=choice,
        count=len(_chosen(parts, choice)) if is_made else 0,
        cameras=sorted({info.camera for info in parts.samples.find()} - {""}),
        deletions=[
            DeletionView(
                at=entry.at, by=entry.by, reason=entry.reason, samples=list(entry.what["samples"]),
                remaining=parts.deletion.remaining(entry),
            )
            for entry in entries[:MOST_DELETIONS]
        ],
    )  # fmt: skip


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
