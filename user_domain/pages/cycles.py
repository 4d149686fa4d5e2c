"""The page of update cycles: what is asked, the answer of the site's people, progress, and what was uploaded."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from diredi.consent import Event
from diredi.errors import NotFound
from diredi.web.app import Changing, Viewing, body_of, pages_of, read, wants_json
from user_domain.consent import digest_of
from user_domain.servicer import SiteParts
from user_domain.task_handlers import SiteContext
from user_domain.tasks import Task
from user_domain.update_rules import ALL

MOST_CYCLES = 200
_DONE: dict[Event, str] = {
    "declined": "declined",
    "validated": "result measured",
    "uploaded": "gap uploaded",
    "approved": "approved",
}


class Explained(BaseModel):
    """One thing to know before deciding."""

    subject: str
    text: str


class AskedView(BaseModel):
    """What waits for the site's yes or no."""

    cycle: str
    explanation: list[Explained]
    shown: str
    """The digest of what is asked; a decision repeats it."""


class StepView(BaseModel):
    """One step of the work under way."""

    step: str
    fraction: float
    message: str


class WorkView(BaseModel):
    """The work under way at this site."""

    cycle: str
    kind: str
    steps: list[StepView]


class EntryView(BaseModel):
    """One entry of the site's journal of consent."""

    event: str
    at: datetime
    by: str
    reason: str


class CycleView(BaseModel):
    """A cycle that the journal knows."""

    cycle: str
    state: str
    entries: list[EntryView]
    has_manifest: bool
    before: float | None
    """mAP50 of the student that was deployed, on this site's held-out images; None where it is not known."""
    after: float | None
    """mAP50 of the candidate that came of the cycle, on the same images."""
    measured: bool
    """Whether this site has measured the candidate, so that it can be compared with the release before."""


class CyclesView(BaseModel):
    """All about the cycles of this site."""

    site: str
    policy: str
    asked: list[AskedView]
    work: WorkView | None
    last_error: str
    cycles: list[CycleView]
    held: list[int]
    """Releases that this site holds: its devices do not change over to them."""
    all_held: bool


class ManifestView(BaseModel):
    """What was said of a gap that left."""

    cycle: str
    manifest: dict[str, Any]


class Decision(BaseModel):
    """A person's yes or no."""

    answer: Literal["approved", "declined"]
    shown: str = Field(max_length=64)
    """The digest of what is asked, as `GET /cycles` has it."""
    reason: str = Field(default="", max_length=500)
    """Why not; the manufacturer is told."""


class Holding(BaseModel):
    """What a person says of a release, or of all."""

    answer: Literal["held", "unheld"]
    release: int = Field(ge=0, le=2**53)
    """Its number; 0: all."""


def make_router(parts: SiteParts, site: SiteContext) -> APIRouter:
    """Return the handlers of the page of cycles."""
    api = APIRouter(prefix="/cycles", tags=["cycles"])
    look = _Look(parts, site)

    @api.get("", response_model=CyclesView, summary="What is asked, what is under way, and what was answered.")
    async def show(request: Request, session: Viewing) -> Response:
        return pages_of(request).answer(request, "cycles.html", look.everything(), session=session)

    @api.get("/events/{part}", summary="A part of the page, whenever it changes (server-sent events).")
    async def follow(request: Request, part: Literal["work", "journal"], session: Viewing) -> Response:
        pages, template = pages_of(request), f"cycles_{part}.html"
        return pages.follow(request, session, lambda: pages.render(request, template, look.everything(), session))

    @api.get("/manifests/{cycle:path}", response_model=ManifestView, summary="What was said of a gap that left.")
    async def manifest(request: Request, cycle: str, session: Viewing) -> Response:
        found = site.manifests.find(cycle) if site.manifests else None
        if found is None:
            raise NotFound("no manifest of that cycle is kept here: no gap of it has left this site")
        view = ManifestView(cycle=cycle, manifest=found)
        return pages_of(request).answer(request, "manifest.html", view, session=session)

    @api.post(
        "/decisions/{cycle:path}", openapi_extra=body_of(Decision), response_model=CyclesView,
        summary="The site's yes or no, signed with its own key into its own journal.",
    )  # fmt: skip
    async def decide(request: Request, cycle: str, session: Changing) -> Response:
        decision = await read(request, Decision)
        entry = parts.consent.decide_for(
            f"{session.person}, by page", decision.answer, cycle, decision.shown, parts.worker.waiting, decision.reason
        )
        structlog.get_logger().info("consent_recorded", cycle=entry.cycle_id, decision=entry.event, by=entry.by)
        parts.worker.decision_recorded()
        if wants_json(request):
            return pages_of(request).answer(request, "cycles.html", look.everything(), session=session)
        return RedirectResponse("/cycles", 303)

    @api.post(
        "/holds", openapi_extra=body_of(Holding), response_model=CyclesView,
        summary="Hold a release, or let it come: devices of this site ask before they change over.",
    )  # fmt: skip
    async def hold(request: Request, session: Changing) -> Response:
        wanted = await read(request, Holding)
        entry = parts.rules.decide_for(f"{session.person}, by page", wanted.answer, wanted.release)
        structlog.get_logger().info("hold_recorded", release=wanted.release or "all", decision=entry.event, by=entry.by)
        if wants_json(request):
            return pages_of(request).answer(request, "cycles.html", look.everything(), session=session)
        return RedirectResponse("/cycles", 303)

    return api


class _Look:
    """Read what the page shows."""

    def __init__(self, parts: SiteParts, site: SiteContext) -> None:
        self._parts, self._site = parts, site

    def everything(self) -> CyclesView:
        parts, latest, held = self._parts, self._site.latest, self._parts.rules.held()
        steps = [StepView(step=one.step, fraction=one.fraction, message=one.message) for one in latest.steps]
        return CyclesView(
            site=parts.site,
            policy=self._site.policy.approval,
            asked=[self._asked(task) for task in parts.worker.waiting],
            work=WorkView(cycle=latest.cycle_id, kind=latest.kind, steps=steps) if latest.cycle_id else None,
            last_error=parts.worker.last_error,
            cycles=[self._cycle(cycle_id) for cycle_id in parts.consent.journal.cycles[:MOST_CYCLES]],
            held=sorted(held - {ALL}),
            all_held=ALL in held,
        )

    def _asked(self, task: Task) -> AskedView:
        consent = self._parts.consent
        explanation = [Explained(subject=subject, text=text) for subject, text in consent.explain(task)]
        return AskedView(cycle=task.cycle_id, explanation=explanation, shown=digest_of(consent.describe(task)))

    def _cycle(self, cycle_id: str) -> CycleView:
        entries = self._parts.consent.journal.find(cycle_id, *_DONE)
        last = entries[-1].event
        manifest = self._site.manifests.find(cycle_id) if self._site.manifests else None
        validated = next((one.what.get("figures") for one in reversed(entries) if one.event == "validated"), None)
        return CycleView(
            cycle=cycle_id,
            state="under way" if self._site.latest.cycle_id == cycle_id else _DONE[last],
            entries=[EntryView(event=one.event, at=one.at, by=one.by, reason=one.reason) for one in entries],
            has_manifest=manifest is not None,
            before=_map50(manifest and manifest.get("student_before")),
            after=_map50(validated),
            measured=validated is not None,
        )


def _map50(figures: object) -> float | None:
    """Return the mAP50 of figures as a journal or a manifest has them; None where no image says it."""
    if not isinstance(figures, dict) or not figures.get("images"):
        return None
    return float(figures.get("map50", 0.0))
