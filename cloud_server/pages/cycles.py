"""The pages of update cycles: the list, one cycle as it goes on, and the form that starts one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, Final

import yaml
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import RedirectResponse, Response

from cloud_server.entities import Cycle, Json, Part, Progress, Transition
from cloud_server.notifier import cycle_topic
from cloud_server.pages.parts import ConsoleParts, actor_of, may_operate, when_changed
from cloud_server.scopes import FLEET, group_scope
from cloud_server.states import BEFORE_UPLOAD, ENDS, State
from cloud_server.store import Repository
from diredi.errors import Refused
from diredi.knowledge.recipe import CycleRecipe
from diredi.text import percent
from diredi.web.app import Changing, Viewing, body_of, pages_of, read, wants_json

PAGE: Final = 50
MOST_FIGURES: Final = 40
_LONGEST: Final = 200
_PATH: Final = (
    State.REQUESTED, State.OFFERED, State.EXTRACTING, State.UPLOADED, State.APPLIED, State.GATED, State.REDISTILLED,
    State.CANARY, State.RELEASED,
)  # fmt: skip
PLAIN: Final = {
    State.REQUESTED: "waits until a site hears of it",
    State.OFFERED: "waits for the answer of a site",
    State.EXTRACTING: "sites learn",
    State.UPLOADED: "the cloud merges what the sites have learned",
    State.APPLIED: "the updated tutor is tested",
    State.GATED: "the next student is made",
    State.REDISTILLED: "the new student is tested",
    State.CANARY: "the first devices and the sites try it",
    State.RELEASED: "released",
    State.DECLINED: "declined by the sites",
    State.REJECTED: "rejected by a test",
    State.FAILED: "failed",
    State.ROLLED_BACK: "taken back",
}
"""What goes on in a state, for people."""
REACHED: Final = {
    State.REQUESTED: "asked for",
    State.OFFERED: "offered to the site",
    State.EXTRACTING: "the site learns",
    State.UPLOADED: "gap uploaded",
    State.APPLIED: "gaps merged into the tutor",
    State.GATED: "updated tutor passed its test",
    State.REDISTILLED: "new student made",
    State.CANARY: "release for the first devices",
    State.RELEASED: "released",
    State.DECLINED: "declined",
    State.REJECTED: "rejected by a test",
    State.FAILED: "failed",
    State.ROLLED_BACK: "taken back",
}
"""What has been reached with a state, for people."""


class Figure(BaseModel):
    """One figure of a step, by name."""

    name: str
    text: str


class StepView(BaseModel):
    """One recorded step of a cycle: who, when, why, and the figures."""

    state: str
    plain: str
    at: datetime
    by: str
    why: str
    figures: list[Figure]


class ProgressView(BaseModel):
    """How far a long step is."""

    who: str
    step: str
    fraction: float
    message: str


class PartView(BaseModel):
    """One site's part of a cycle."""

    site: str
    state: str
    plain: str
    approved: bool
    why: str
    images: int | None
    before: float | None
    """mAP50 on the site's held-out images, 0 to 1."""
    after: float | None


class ClassFigure(BaseModel):
    """AP50 of one class on a site's held-out images, 0 to 1."""

    site: str
    name: str
    before: float | None
    after: float | None


class CycleLine(BaseModel):
    """A cycle in the list."""

    id: str
    state: str
    plain: str
    ended: bool
    good: bool
    scope: str
    sites: list[str]
    release: int
    rebases: int
    created: datetime
    changed: datetime


class CyclesView(BaseModel):
    """Cycles, newest first."""

    cycles: list[CycleLine]
    site: str
    next: str
    """The id after which the next page begins; empty: this is the last."""
    may_operate: bool


class CycleView(BaseModel):
    """One cycle, whole."""

    cycle: CycleLine
    place: int
    """How many of the steps of a whole cycle are behind it."""
    path: list[str]
    """The states of a cycle that reaches all devices, in plain words."""
    progress: list[ProgressView]
    parts: list[PartView]
    classes: list[ClassFigure]
    steps: list[StepView]
    """Newest first."""
    base_tutor: str
    base_student: str
    updated_tutor: str
    updated_student: str
    recipe: Json


class Row(BaseModel):
    """One thing in which two cycles are compared."""

    name: str
    first: str
    second: str


class ComparisonView(BaseModel):
    """Two cycles side by side."""

    cycles: list[CycleLine]
    facts: list[Row]
    """How each went."""
    figures: list[Row]
    """mAP50 and AP50 after each, by site and class; where nothing is known, empty."""
    recipe: list[Row]
    """Options that differ."""


class OptionView(BaseModel):
    """One option of the recipe of a cycle."""

    name: str
    default: str
    """As the field of the form takes it."""
    plain: str


class NewView(BaseModel):
    """What the form needs that starts a cycle."""

    request_id: str
    sites: list[str]
    chosen: list[str]
    busy: dict[str, str]
    """The cycle that each busy site takes part in."""
    scopes: list[str]
    options: list[OptionView]
    may_operate: bool


class StartRequest(BaseModel):
    """What starts a cycle."""

    sites: list[str] = Field(default=[], max_length=1000)
    scope: str = Field(default=FLEET, max_length=100)
    """Whom the release is for: fleet, site, or group:NAME."""
    request_id: str = Field(default="", max_length=128)
    """Made up by the caller; the same id starts one cycle only. Empty: another one each time."""
    recipe: Json = {}
    """Options that differ from the cloud's own recipe. In a form they are fields such as recipe.lam, in YAML."""

    @model_validator(mode="before")
    @classmethod
    def _fields_of_a_form(cls, given: Any) -> Any:  # noqa: ANN401 - whatever came
        if not isinstance(given, dict):
            return given
        plain = {name: value for name, value in given.items() if not name.startswith("recipe.")}
        options = {
            name.removeprefix("recipe."): _yaml(name, str(value))
            for name, value in given.items()
            if name.startswith("recipe.") and str(value).strip()
        }
        return plain | ({"recipe": options} if options else {})


def make_router(parts: ConsoleParts) -> APIRouter:
    """Return the handlers of the pages of cycles."""
    api = APIRouter(prefix="/cycles", tags=["cycles"])

    @api.get("", response_model=CyclesView, summary="Cycles, newest first, one page at a time.")
    async def show(
        request: Request,
        session: Viewing,
        site: Annotated[str, Query(max_length=100)] = "",
        after: Annotated[str, Query(max_length=100)] = "",
    ) -> Response:
        found = await parts.cycles.recent(actor_of(session), site, PAGE + 1, after)
        view = CyclesView(
            cycles=[line_of(cycle) for cycle in found[:PAGE]], site=site,
            next=found[PAGE - 1].id if len(found) > PAGE else "", may_operate=may_operate(session),
        )  # fmt: skip
        return pages_of(request).answer(request, "cycles.html", view, session=session)

    @api.get("/new", response_model=NewView, summary="What can be asked for in a new cycle.")
    async def form(request: Request, session: Viewing, site: Annotated[str, Query(max_length=100)] = "") -> Response:
        if not may_operate(session):
            raise Refused("cycles are started by operators: ask one, or have a certificate with that role")

        def read_form(r: Repository) -> NewView:
            busy = {part.site: cycle.id for cycle in r.cycles.unfinished() for part in cycle.active_parts}
            groups = sorted(set(r.groups.by_site().values()))
            return NewView(
                request_id=secrets.token_hex(12), sites=[one.name for one in r.sites.all()], busy=busy,
                chosen=[site], scopes=[FLEET, "site", *map(group_scope, groups)],
                options=list(_options(parts.config.cycle_recipe)), may_operate=True,
            )  # fmt: skip

        view = await parts.context.read_for_person(actor_of(session), read_form)
        return pages_of(request).answer(request, "cycle_new.html", view, session=session)

    @api.get("/comparison", response_model=ComparisonView, summary="Two cycles side by side.")
    async def compare(
        request: Request, session: Viewing,
        first: Annotated[str, Query(max_length=100)], second: Annotated[str, Query(max_length=100)],
    ) -> Response:  # fmt: skip
        found = [await parts.cycles.get(actor_of(session), cycle_id) for cycle_id in (first, second)]
        return pages_of(request).answer(request, "cycle_comparison.html", _compare(*found), session=session)

    @api.post("", openapi_extra=body_of(StartRequest), response_model=CycleView, summary="Start a cycle.")
    async def start(request: Request, session: Changing) -> Response:
        wanted = await read(request, StartRequest)
        request_id = wanted.request_id or secrets.token_hex(12)
        cycle = await parts.cycles.start(actor_of(session), wanted.sites, request_id, wanted.recipe, wanted.scope)
        if wants_json(request):
            return pages_of(request).answer(request, "cycle.html", _whole(cycle), session=session)
        return RedirectResponse(f"/cycles/{cycle.id}", 303)

    @api.get("/{cycle_id}", response_model=CycleView, summary="One cycle: its steps, sites and figures.")
    async def one(request: Request, cycle_id: str, session: Viewing) -> Response:
        view = _whole(await parts.cycles.get(actor_of(session), cycle_id))
        return pages_of(request).answer(request, "cycle.html", view, session=session)

    @api.get("/{cycle_id}/events", summary="The page of a cycle, whenever it changes (server-sent events).")
    async def follow(request: Request, cycle_id: str, session: Viewing) -> Response:
        actor, pages = actor_of(session), pages_of(request)
        await parts.cycles.get(actor, cycle_id)

        async def render() -> str:
            view = _whole(await parts.cycles.get(actor, cycle_id))
            return pages.render(request, "cycle_live.html", view, session)

        return pages.follow(request, session, when_changed(parts, cycle_topic(cycle_id), render))

    return api


def _yaml(name: str, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise ValueError(f"{name} is not YAML: write a value such as 0.5, true or [gap, mean]") from None


def _options(recipe: CycleRecipe) -> Iterator[OptionView]:
    for name, value in recipe.model_dump(mode="json").items():
        description = type(recipe).model_fields[name].description or ""
        yield OptionView(name=name, default=json.dumps(value, ensure_ascii=False), plain=" ".join(description.split()))


def line_of(cycle: Cycle) -> CycleLine:
    """Return a cycle as lists show it."""
    return CycleLine(
        id=cycle.id, state=cycle.state.value, plain=PLAIN[cycle.state], ended=cycle.state in ENDS,
        good=cycle.state is State.RELEASED, scope=cycle.scope, sites=list(cycle.sites), release=cycle.release_version,
        rebases=cycle.rebases, created=cycle.created, changed=cycle.progressed_at,
    )  # fmt: skip


def _whole(cycle: Cycle) -> CycleView:
    reached = [step.state for step in cycle.history if step.state in _PATH]
    progress = [_progress("cloud", cycle.progress)] if cycle.progress and cycle.state not in BEFORE_UPLOAD else []
    progress += [_progress(part.site, part.progress) for part in cycle.active_parts if part.progress]
    return CycleView(
        cycle=line_of(cycle), place=max(map(_PATH.index, reached), default=0), path=[REACHED[state] for state in _PATH],
        progress=progress, parts=[_part(part) for part in cycle.parts],
        classes=[figure for part in cycle.parts for figure in _class_figures(part)],
        steps=[_step(step) for step in reversed(cycle.history)], base_tutor=cycle.base_tutor_id,
        base_student=cycle.base_student_id, updated_tutor=cycle.updated_tutor_id,
        updated_student=cycle.updated_student_id, recipe=cycle.recipe,
    )  # fmt: skip


def _compare(first: Cycle, second: Cycle) -> ComparisonView:
    both = (first, second)
    facts, figures = [_facts(cycle) for cycle in both], [dict(_after(_whole(cycle))) for cycle in both]
    recipes = [{name: json.dumps(value, ensure_ascii=False) for name, value in cycle.recipe.items()} for cycle in both]
    differing = [name for name in recipes[0] | recipes[1] if recipes[0].get(name) != recipes[1].get(name)]
    return ComparisonView(
        cycles=[line_of(cycle) for cycle in both], facts=_rows(facts, facts[0]),
        figures=_rows(figures, figures[0] | figures[1]), recipe=_rows(recipes, differing),
    )  # fmt: skip


def _rows(both: list[dict[str, str]], names: Iterable[str]) -> list[Row]:
    return [Row(name=name, first=both[0].get(name, ""), second=both[1].get(name, "")) for name in names]


def _facts(cycle: Cycle) -> dict[str, str]:
    minutes = (cycle.progressed_at - cycle.created).total_seconds() / 60
    reasons = [step.reason for step in cycle.history if step.reason]
    return {
        "state": PLAIN[cycle.state],
        "scope": cycle.scope,
        "sites": ", ".join(cycle.sites),
        "release": str(cycle.release_version or ""),
        "minutes": f"{minutes:.0f}",
        "starts from student": cycle.base_student_id[7:19],
        "last reason": reasons[-1] if reasons else "",
    }


def _after(view: CycleView) -> Iterator[tuple[str, str]]:
    for part in view.parts:
        if part.after is not None:
            yield f"{part.site}: mAP50", percent(part.after)
    for one in view.classes:
        if one.after is not None:
            yield f"{one.site}: {one.name}", percent(one.after)


def _progress(who: str, progress: Progress) -> ProgressView:
    return ProgressView(who=who, step=progress.step, fraction=progress.fraction, message=progress.message)


def _part(part: Part) -> PartView:
    before = part.before or (part.gap.student_before if part.gap else None)
    return PartView(
        site=part.site, state=part.state.value, plain=REACHED[part.state], approved=part.approved,
        why=part.dropped_because, images=part.gap.train_images if part.gap else None,
        before=before.map50 if before else None, after=part.after.map50 if part.after else None,
    )  # fmt: skip


def _class_figures(part: Part) -> Iterator[ClassFigure]:
    before = part.before or (part.gap.student_before if part.gap else None)
    known = dict(before.per_class) if before else {}
    new = dict(part.after.per_class) if part.after else {}
    for name in [*known, *(name for name in new if name not in known)]:
        yield ClassFigure(
            site=part.site, name=name, before=known[name].ap50 if name in known else None,
            after=new[name].ap50 if name in new else None,
        )  # fmt: skip


def _step(step: Transition) -> StepView:
    return StepView(
        state=step.state.value, plain=REACHED[step.state], at=step.at, by=step.actor, why=step.reason,
        figures=list(figures_of(step.metrics))[:MOST_FIGURES],
    )  # fmt: skip


def figures_of(metrics: Json, within: str = "") -> Iterator[Figure]:
    """Yield the figures of a step for people: of a whole set of metrics its mAP50, of others name and value."""
    for name, value in metrics.items():
        path = f"{within} {name}".strip()
        if isinstance(value, dict) and isinstance(value.get("map50"), int | float):
            yield Figure(name=f"mAP50 {path}"[:_LONGEST], text=percent(value["map50"]))
        elif isinstance(value, dict):
            yield from figures_of(value, path)
        else:
            text = f"{value:.4g}" if isinstance(value, float) else _plain(value)
            yield Figure(name=path.replace("_", " ")[:_LONGEST], text=text[:_LONGEST])


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
