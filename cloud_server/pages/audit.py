"""The page of the log of decisions: who decided what, by which figures, and whether the log is what it was."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from cloud_server import audit
from cloud_server.pages.cycles import REACHED, Figure, figures_of
from cloud_server.pages.parts import ConsoleParts, actor_of
from cloud_server.states import State
from cloud_server.store import Repository
from cloud_server.store.log import LogEntry
from diredi.web.app import Viewing, pages_of

PAGE: Final = 100
_MOST: Final = 60
Kind = Literal["", "transition", "release", "status", "rollout", "install", "signatures", "note"]


class EntryView(BaseModel):
    """One decision."""

    index: int
    subject: str
    about: str
    """The same in words."""
    at: datetime
    by: str
    what: str
    details: list[Figure]


class AuditView(BaseModel):
    """Entries of the log, newest first."""

    entries: list[EntryView]
    size: int
    """Number of entries of the whole log."""
    root: str
    """The root of the Merkle tree over all entries, in hex."""
    kind: str
    before: int | None
    """Before which entry the next page begins; none: this is the last."""


class ReportView(BaseModel):
    """What a verification of the whole log has found."""

    entries: int
    root: str
    heads: int
    releases: int
    findings: list[str]


def make_router(parts: ConsoleParts) -> APIRouter:
    """Return the handlers of the page of the log of decisions."""
    api = APIRouter(prefix="/audit", tags=["log of decisions"])
    one_at_a_time = asyncio.Lock()

    @api.get("", response_model=AuditView, summary="Entries of the log of decisions, newest first.")
    async def show(
        request: Request,
        session: Viewing,
        kind: Kind = "",
        before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    ) -> Response:
        def look(r: Repository) -> AuditView:
            tree, found = r.log.frontier(), r.log.newest(PAGE + 1, kind, before)
            return AuditView(
                entries=[_entry(entry) for entry in found[:PAGE]], size=tree.size, root=tree.root.hex(), kind=kind,
                before=found[PAGE - 1].index if len(found) > PAGE else None,
            )  # fmt: skip

        view = await parts.context.read_for_person(actor_of(session), look)
        return pages_of(request).answer(request, "audit.html", view, session=session)

    @api.get("/verification", response_model=ReportView, summary="Verify the whole log now.")
    async def verify(request: Request, session: Viewing) -> Response:
        async with one_at_a_time:  # it reads everything
            report = await asyncio.to_thread(audit.verify, parts.config)
        view = ReportView(
            entries=report.entries, root=report.root, heads=report.heads, releases=report.releases,
            findings=list(report.findings),
        )  # fmt: skip
        return pages_of(request).answer(request, "verification.html", view, session=session)

    return api


def _entry(entry: LogEntry) -> EntryView:
    details = {name: value for name, value in entry.values.items() if name not in {"salt", "actor", "reason"}}
    figures = [*figures_of(entry.public), *figures_of(details)]
    return EntryView(
        index=entry.index, subject=entry.subject, about=_plain(entry),
        at=entry.at, by=str(entry.values.get("actor", "")),
        what=str(entry.values.get("reason", "")), details=figures[:_MOST],
    )  # fmt: skip


def _plain(entry: LogEntry) -> str:
    """Return what an entry is about, in words."""
    kind, _, rest = entry.subject.partition("/")
    values = entry.values | entry.public
    match kind:
        case "transition":
            state = str(values["state"])
            return f"{values['cycle']}: {REACHED[State(state)] if state in set(State) else state}"
        case "release":
            return f"release {rest} made"
        case "status":
            return f"release {values['version']} is {values['status']}"
        case "rollout":
            return f"rollout of release {values['version']}"
        case "install":
            return f"{values['device']}: release {values['version']} {values['outcome']}"
        case "note":
            return f"note on model {str(values['model'])[7:19]}"
    return entry.subject
