"""What a site says to the cloud: its stream of tasks, its progress, its classes, its gap, its validation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from cloud_server import authorization
from cloud_server.context import CloudContext
from cloud_server.cycles import transitions
from cloud_server.cycles.gap_validation import GapValidator
from cloud_server.entities import Cycle, GapManifest, Model, Progress, Site
from cloud_server.notifier import site_topic
from cloud_server.states import BEFORE_UPLOAD
from cloud_server.store.repository import Repository
from cloud_server.tasks import Task, TaskKind, open_tasks, parse_task_id
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob
from diredi.trust.identity import Identity

_LOOK_BACK = 2
"""Cycles of a site that a new stream hears of: the one under way, and the one before it where it was cut off."""


@dataclass(frozen=True)
class Assignment:
    """A task with everything that the site needs for it."""

    task: Task
    tutor: Model | None = None
    student: Model | None = None
    coreset: Blob | None = None


@dataclass(frozen=True)
class Policy:
    """What a site says of itself when it opens its stream."""

    auto_approve: bool
    publish_style: bool = False


@dataclass(frozen=True)
class SiteView:
    """A site as operators see it."""

    site: Site
    online: bool
    devices: int
    cycle_id: str


class SiteService:
    def __init__(self, context: CloudContext, validator: GapValidator) -> None:
        self._context = context
        self._validator = validator

    async def watch(self, actor: Identity, site: str, policy: Policy) -> AsyncGenerator[Assignment | None]:
        """Every open task now, then each new or changed one; None keeps the stream alive."""
        authorization.require_site(actor, site)
        context, topic = self._context, site_topic(site)
        sent: set[tuple[str, bool]] = set()
        with context.track_stream(f"site/{site}"):
            while True:
                seen_version = context.notifier.version(topic)
                for assignment in await self._assignments(site, policy):
                    if assignment.task.key not in sent:
                        sent.add(assignment.task.key)
                        yield assignment
                if not await context.notifier.wait_for_change(topic, seen_version, context.keep_alive_s):
                    yield None

    async def _assignments(self, site: str, policy: Policy) -> list[Assignment]:
        """Recorded as offered before anything is sent."""
        now = self._context.now()
        before = await self._context.database.read(lambda r: r.cycles.recent(site, _LOOK_BACK))

        def offer_all(r: Repository) -> list[Assignment]:
            r.sites.record_contact(site, now, policy.auto_approve)
            for cycle in r.cycles.recent(site, _LOOK_BACK):
                if cycle.state in BEFORE_UPLOAD:
                    auto, style = policy.auto_approve, policy.publish_style
                    transitions.offer(r, cycle.id, site, now, auto_approve=auto, publish_style=style)
            return [_assign(r, task) for task in reversed(open_tasks(r.cycles.recent(site, _LOOK_BACK), site))]

        assignments = await self._context.database.write(offer_all)
        known = {cycle.id: len(cycle.history) for cycle in before}
        for assignment in assignments:
            if known.get(assignment.task.cycle.id) != len(assignment.task.cycle.history):
                self._context.moved(assignment.task.cycle)
        return assignments

    async def report(self, actor: Identity, cycle_id: str, progress: Progress) -> None:
        before = await self._own(actor, cycle_id)
        now = self._context.now()
        write = self._context.database.write
        after = await write(lambda r: transitions.report_progress(r, cycle_id, actor.name, progress, now))
        moved = len(after.history) != len(before.history)
        (self._context.moved if moved else self._context.progressed)(after)

    async def propose(self, actor: Identity, cycle_id: str, names: Sequence[str]) -> LabelSpace:
        await self._own(actor, cycle_id)
        now = self._context.now()
        propose = transitions.propose_classes
        return await self._context.database.write(lambda r: propose(r, cycle_id, actor.name, names, now))

    async def submit_gap(self, actor: Identity, manifest: GapManifest, certificate: str) -> None:
        """Verifies everything, then changes the state: after a refusal every store is as it was.

        `certificate` (PEM) is the one whose key made the manifest's signature.
        """
        await self._own(actor, manifest.cycle_id)
        database, site = self._context.database, actor.name
        if await database.read(lambda r: transitions.check_manifest(r, site, manifest)):
            return
        tutor, student = await database.read(lambda r: _bases(r, manifest.cycle_id))
        await asyncio.to_thread(self._validator.validate, manifest, tutor, student)
        now = self._context.now()
        accept = transitions.accept_gap
        self._context.moved(await database.write(lambda r: accept(r, site, manifest, certificate, now)))

    async def submit_validation(self, actor: Identity, cycle_id: str, after: DetectionMetrics) -> None:
        await self._own(actor, cycle_id)
        now = self._context.now()
        write = self._context.database.write
        self._context.moved(await write(lambda r: transitions.accept_validation(r, cycle_id, actor.name, after, now)))

    async def fail_task(self, actor: Identity, task_id: str, reason: str) -> None:
        await self._own(actor, parse_task_id(task_id)[0])
        now = self._context.now()
        write = self._context.database.write
        self._context.moved(await write(lambda r: transitions.fail_task(r, task_id, actor.name, reason, now)))

    async def sites(self, actor: Identity) -> list[SiteView]:
        authorization.require_operator(actor)
        online = set(self._context.open_streams)

        def views(r: Repository) -> list[SiteView]:
            devices = r.devices.count_by_site()
            running = {part.site: cycle.id for cycle in r.cycles.unfinished() for part in cycle.active_parts}
            return [
                SiteView(site, f"site/{site.name}" in online, devices.get(site.name, 0), running.get(site.name, ""))
                for site in r.sites.all()
            ]

        return await self._context.database.read(views)

    async def _own(self, actor: Identity, cycle_id: str) -> Cycle:
        cycle = await self._context.database.read(lambda r: r.cycles.get(cycle_id))
        authorization.require_member_site(actor, cycle.sites)
        return cycle


def _assign(r: Repository, task: Task) -> Assignment:
    cycle = task.cycle
    if task.kind is TaskKind.EXTRACT:
        student = r.models.get(cycle.base_student_id)
        return Assignment(task, r.models.get(cycle.base_tutor_id), student, r.facts.coreset)
    if task.kind is TaskKind.VALIDATE:
        return Assignment(task, student=r.models.get(cycle.updated_student_id))
    return Assignment(task)


def _bases(r: Repository, cycle_id: str) -> tuple[Model, Model]:
    cycle = r.cycles.get(cycle_id)
    return r.models.get(cycle.base_tutor_id), r.models.get(cycle.base_student_id)
