"""The page of models: what each release is made of, what it finds of each class, and what people say about it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.responses import FileResponse, RedirectResponse, Response

from cloud_server.authorization import require_operator
from cloud_server.entities import Model, ModelKind, Release
from cloud_server.pages import drawings
from cloud_server.pages.parts import ConsoleParts, actor_of, may_operate
from cloud_server.store import Repository
from diredi.errors import NotFound
from diredi.text import printable
from diredi.web.app import Changing, Viewing, body_of, pages_of, read, wants_json
from diredi.web.charts import MOST_SERIES, lines

PAGE: Final = 50
SHOWN_RELEASES: Final = 12
MOST_CLASSES: Final = 200


class LineageView(BaseModel):
    """What a release is made of."""

    version: int
    scope: str
    status: str
    tutor: str
    student: str
    base_tutor: str
    base_student: str
    gaps: list[str]
    """The sites whose gaps are in it."""
    parents: list[int]
    """The releases that it came from."""


class ModelLine(BaseModel):
    """A model in the list."""

    id: str
    kind: str
    architecture: str
    classes: int
    map50: float | None
    """On presumed images, 0 to 1."""
    cycle: str
    scope: str
    created: datetime


class ModelsView(BaseModel):
    """The newest releases and what they are made of, their figures by class, and the models of the registry."""

    lineage: list[LineageView]
    """Oldest first."""
    teacher: str
    classes: dict[str, list[float | None]]
    """AP50 of each class on presumed images (0 to 1), for each release of `lineage`."""
    models: list[ModelLine]
    next: str
    """The id after which the next page of models begins; empty: this is the last."""

    def graph(self, label: str) -> Markup:
        """Return the drawing of where the models come from."""
        columns = [
            drawings.Column(
                one.version, one.scope, one.status, one.tutor, one.student, one.base_tutor, one.base_student,
                tuple(one.gaps),
            )
            for one in self.lineage
        ]  # fmt: skip
        return drawings.lineage(columns, self.teacher, label)

    def series(self) -> dict[str, list[float | None]]:
        """Return the classes that have changed most, as many as a chart has colours for."""
        return dict(sorted(self.classes.items(), key=lambda item: -_change(item[1]))[:MOST_SERIES])

    def chart(self, label: str) -> Markup:
        """Return the chart of these classes over the releases."""
        columns = [str(one.version) for one in self.lineage]
        return lines(columns, self.series(), label, lambda value: f"{100 * value:.0f}", height=260)


class ClassFigure(BaseModel):
    """What a model finds of one class on presumed images, 0 to 1."""

    name: str
    ap50: float | None
    ap50_95: float | None
    boxes: int


class Note(BaseModel):
    """What a person has said about a model."""

    at: datetime
    by: str
    text: str


class ModelView(BaseModel):
    """One model, whole."""

    model: ModelLine
    image_size: int
    weights_bytes: int
    onnx_bytes: int | None
    parent: str
    releases: list[int]
    """The releases that it is in."""
    figures: list[ClassFigure]
    notes: list[Note]
    """Newest first. They are entries of the log of decisions, so none is changed or removed."""
    may_operate: bool


class NoteRequest(BaseModel):
    """Something to say about a model."""

    text: str = Field(min_length=1, max_length=2000)


def make_router(parts: ConsoleParts) -> APIRouter:
    """Return the handlers of the pages of models."""
    api = APIRouter(prefix="/models", tags=["models"])

    @api.get("", response_model=ModelsView, summary="Where releases come from, their figures, and all models.")
    async def show(
        request: Request, session: Viewing, after: Annotated[str, Query(max_length=100)] = ""
    ) -> Response:  # fmt: skip
        def look(r: Repository) -> ModelsView:
            releases = r.releases.all()[:SHOWN_RELEASES][::-1]
            models = r.models.all(after=after, limit=PAGE + 1)
            teachers = r.models.all(ModelKind.TEACHER, limit=1)
            is_first = bool(releases) and releases[0].version == 1
            return ModelsView(
                lineage=_lineage(r, releases), teacher=teachers[0].id if teachers and is_first else "",
                classes=_classes([r.models.get(release.student_id) for release in releases]),
                models=[_line(model) for model in models[:PAGE]],
                next=models[PAGE - 1].id if len(models) > PAGE else "",
            )  # fmt: skip

        view = await parts.context.read_for_person(actor_of(session), look)
        return pages_of(request).answer(request, "models.html", view, session=session)

    @api.get("/{model_id}", response_model=ModelView, summary="One model: its figures, releases and notes.")
    async def one(request: Request, model_id: str, session: Viewing) -> Response:
        view = await parts.context.read_for_person(
            actor_of(session), lambda r: _view(r, model_id, may_add=may_operate(session))
        )
        return pages_of(request).answer(request, "model.html", view, session=session)

    @api.get("/{model_id}/onnx", summary="The file that devices run, for an operator.", response_class=Response)
    async def export(model_id: str, session: Viewing) -> Response:
        require_operator(actor_of(session))
        model = await parts.context.read_for_person(actor_of(session), lambda r: r.models.get(model_id))
        if model.onnx is None:
            raise NotFound(f"{model.kind.value} {model.id[7:19]} is no file that devices run: choose a student")
        path = await asyncio.to_thread(parts.blobs.path, model.onnx.digest)
        structlog.get_logger().info("model_exported", model=model.id, by=session.person)
        name = f"{model.kind.value}-{model.id[7:19]}.onnx"
        return FileResponse(path, media_type="application/octet-stream", filename=name)

    @api.post(
        "/{model_id}/notes", openapi_extra=body_of(NoteRequest), response_model=ModelView,
        summary="Say something about a model; it stays in the log of decisions.",
    )  # fmt: skip
    async def note(request: Request, model_id: str, session: Changing) -> Response:
        wanted = await read(request, NoteRequest)
        found = await parts.fleet.add_note(actor_of(session), model_id, printable(wanted.text, keep="\n"))
        if wants_json(request):
            view = await parts.context.read_for_person(actor_of(session), lambda r: _view(r, found, may_add=True))
            return pages_of(request).answer(request, "model.html", view, session=session)
        return RedirectResponse(f"/models/{found}", 303)

    return api


def _lineage(r: Repository, releases: list[Release]) -> list[LineageView]:
    parents, found = r.releases.parents(), []
    for release in releases:
        cycle = r.cycles.get(release.cycle_id) if release.cycle_id else None
        found.append(
            LineageView(
                version=release.version, scope=release.scope, status=release.status.value, tutor=release.tutor_id,
                student=release.student_id, base_tutor=cycle.base_tutor_id if cycle else "",
                base_student=cycle.base_student_id if cycle else "",
                gaps=[site for site, _ in cycle.gaps] if cycle else [], parents=list(parents[release.version]),
            )
        )  # fmt: skip
    return found


def _classes(students: list[Model]) -> dict[str, list[float | None]]:
    found: defaultdict[str, list[float | None]] = defaultdict(lambda: [None] * len(students))
    for place, student in enumerate(students):
        for name, figures in student.presumed.per_class.items() if student.presumed else ():
            found[name][place] = figures.ap50
    return dict(list(found.items())[:MOST_CLASSES])


def _change(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if known else 0.0


def _line(model: Model) -> ModelLine:
    return ModelLine(
        id=model.id, kind=model.kind.value, architecture=model.architecture, classes=len(model.labels),
        map50=model.presumed.map50 if model.presumed else None, cycle=model.cycle_id, scope=model.scope,
        created=model.created,
    )  # fmt: skip


def _view(r: Repository, model_id: str, *, may_add: bool) -> ModelView:
    model = r.models.get(model_id)
    per_class = model.presumed.per_class if model.presumed else {}
    figures = [(name, per_class.get(name)) for name in model.labels.names]
    notes = [
        Note(at=entry.at, by=str(entry.values["actor"]), text=str(entry.values["text"]))
        for entry in reversed(r.log.about(f"note/{model.id}/"))
    ]
    return ModelView(
        model=_line(model), image_size=model.image_size, weights_bytes=model.weights.bytes,
        onnx_bytes=model.onnx.bytes if model.onnx else None, parent=model.parent_id,
        releases=[one.version for one in r.releases.all() if model.id in {one.student_id, one.tutor_id}],
        figures=[
            ClassFigure(
                name=name, ap50=one.ap50 if one else None, ap50_95=one.ap50_95 if one else None,
                boxes=one.boxes if one else 0,
            )
            for name, one in figures
        ],
        notes=notes, may_operate=may_add,
    )  # fmt: skip
