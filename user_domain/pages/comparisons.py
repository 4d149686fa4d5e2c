"""The page that compares the candidate of a cycle with the release before it, on the site's own held-out pictures."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from diredi.errors import DirediError, NotFound, WrongState
from diredi.jobs import job_folder
from diredi.progress import Progress
from diredi.web.app import Changing, Viewing, pages_of, wants_json
from user_domain.comparison_job import MODULE, ComparedBox, CompareResult, CompareSpec
from user_domain.pages.pictures import shrink
from user_domain.servicer import SiteParts
from user_domain.task_handlers import SiteContext

SHOWN: Final = 60
"""So many pictures are shown, those first on which most differs."""


class ClassFlips(BaseModel):
    """Objects of one class, by which release has found them."""

    name: str
    gained: int
    """Found by the candidate and not by the release before."""
    lost: int
    """The other way round."""
    both: int
    neither: int


class FlippedImage(BaseModel):
    """A picture on which the two releases differ."""

    number: int
    file: str
    objects: list[ComparedBox]
    false_alarms: list[ComparedBox]


class ComparisonView(BaseModel):
    """What differs between two releases, on held-out pictures of this site."""

    cycle: str
    state: Literal["none", "under way", "done"]
    fraction: float
    problem: str
    images: int
    classes: list[ClassFlips]
    false_alarms_before: int
    false_alarms_after: int
    flipped: list[FlippedImage]


class Comparisons:
    """Compares on demand, one cycle at a time; results last as long as the work files of their cycle."""

    def __init__(self, parts: SiteParts, site: SiteContext, confidence: float) -> None:
        """Make it.

        Args:
            parts: Of the user domain.
            site: What its tasks are performed with.
            confidence: What counts as found (0 to 1).
        """
        self._parts, self._site, self._confidence = parts, site, confidence
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._fraction = 0.0
        self._problems: dict[str, str] = {}
        self._results: dict[str, CompareResult] = {}

    def start(self, cycle: str) -> None:
        """Begin to compare, unless it is done or under way.

        Raises:
            NotFound: This site has measured no candidate of that cycle, or its files are gone.
            WrongState: Another comparison, or work for a cycle, is under way.
        """
        if self._is_running(cycle) or self.result(cycle):
            return
        if self._running is not None or self._site.latest.cycle_id:
            raise WrongState("this computer works for a cycle or another comparison now: wait for its end")
        spec = self._spec(cycle)
        self._fraction, self._problems[cycle] = 0.0, ""
        self._running = cycle, asyncio.create_task(self._run(cycle, spec))

    def result(self, cycle: str) -> CompareResult | None:
        """Return what was found, None where nobody has compared."""
        return self._results.get(cycle)

    def show(self, cycle: str) -> ComparisonView:
        """Return what the page shows."""
        result = self.result(cycle)
        images = [] if result is None else result.images
        flipped = sorted((one for one in enumerate(images) if one[1].flips), key=lambda one: -one[1].flips)[:SHOWN]
        return ComparisonView(
            cycle=cycle,
            state="done" if result else "under way" if self._is_running(cycle) else "none",
            fraction=self._fraction,
            problem=self._problems.get(cycle, ""),
            images=len(images),
            classes=[] if result is None else [
                ClassFlips(
                    name=name,
                    gained=result.count(before=False, after=True, name=name),
                    lost=result.count(before=True, after=False, name=name),
                    both=result.count(before=True, after=True, name=name),
                    neither=result.count(before=False, after=False, name=name),
                )
                for name in result.names
            ],
            false_alarms_before=result.false_alarms(after=False) if result else 0,
            false_alarms_after=result.false_alarms(after=True) if result else 0,
            flipped=[
                FlippedImage(
                    number=number, file=image.path.name, objects=image.objects, false_alarms=image.false_alarms
                )
                for number, image in flipped
            ],
        )  # fmt: skip

    def _is_running(self, cycle: str) -> bool:
        return self._running is not None and self._running[0] == cycle

    def _spec(self, cycle: str) -> CompareSpec:
        journal = self._parts.consent.journal
        entries = {entry.event: entry.what for entry in journal.find(cycle, "approved", "validated")}
        before = self._site.cloud.downloaded(entries.get("approved", {}).get("student", ""), ".safetensors")
        after = self._site.cloud.downloaded(entries.get("validated", {}).get("candidate", ""), ".onnx")
        if before is None or after is None:
            raise NotFound(
                "the two releases of that cycle are not here: this site has not measured its candidate yet, or a later "
                "cycle has begun since"
            )
        return CompareSpec(**self._parts.data().spec, before=before, after=after, confidence=self._confidence)

    async def _run(self, cycle: str, spec: CompareSpec) -> None:
        async def on_progress(progress: Progress) -> None:
            self._fraction = progress.fraction

        try:
            folder = job_folder(self._site.jobs, cycle) / "compare"
            self._results[cycle] = await self._site.executor.run(MODULE, spec, CompareResult, folder, on_progress)
            structlog.get_logger().info("releases_compared", cycle=cycle, images=len(self._results[cycle].images))
        except DirediError as error:
            self._problems[cycle] = str(error)
            structlog.get_logger().warning("comparison_failed", cycle=cycle, error=str(error))
        finally:
            self._running = None


def make_router(comparisons: Comparisons) -> APIRouter:
    """Return the handlers of the page."""
    api = APIRouter(prefix="/comparisons", tags=["cycles"])

    @api.get("/pictures/{number}/{cycle:path}", summary="A picture of a comparison.", response_class=Response)
    async def picture(number: int, cycle: str, session: Viewing) -> Response:
        result = comparisons.result(cycle)
        if result is None or not 0 <= number < len(result.images):
            raise NotFound("there is no such picture: open the page again")
        try:
            data = await asyncio.to_thread(result.images[number].path.read_bytes)
        except OSError:
            raise NotFound("that picture is gone from the disk") from None
        return Response(await asyncio.to_thread(shrink, data, 640), media_type="image/jpeg")

    @api.get("/{cycle:path}", response_model=ComparisonView, summary="What differs between two releases here.")
    async def show(request: Request, cycle: str, session: Viewing) -> Response:
        return pages_of(request).answer(request, "comparison.html", comparisons.show(cycle), session=session)

    @api.post("/{cycle:path}", response_model=ComparisonView, summary="Compare them now, on this site's computer.")
    async def start(request: Request, cycle: str, session: Changing) -> Response:
        comparisons.start(cycle)
        if wants_json(request):
            return pages_of(request).answer(request, "comparison.html", comparisons.show(cycle), session=session)
        return RedirectResponse(str(request.url.path), 303)

    return api
