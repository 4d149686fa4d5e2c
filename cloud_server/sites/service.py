"""The application layer of sites: their stream of tasks, progress, classes, gaps and validations."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cloud_server import authorization
from cloud_server.context import CloudContext
from cloud_server.cycles import transitions
from cloud_server.cycles.gap_validation import GapValidator
from cloud_server.entities import GapManifest, Model, Progress, Release, Site
from cloud_server.notifier import site_topic
from cloud_server.scopes import check_group_name, group_scope, scopes_of
from cloud_server.states import BEFORE_UPLOAD, State
from cloud_server.store import Repository
from cloud_server.tasks import Task, TaskKind, external_tasks, open_tasks, parse_task_id
from diredi.errors import InvalidInput, NotFound, WrongState
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob
from diredi.trust.identity import Identity

_LOOK_BACK: Final = 2
"""Cycles of a site that its stream tells of: the unfinished one, and the one before it, which it may have to cancel."""


@dataclass(frozen=True)
class Assignment:
    """A task with the models and the coreset that the site needs for it."""

    task: Task
    tutor: Model | None = None
    student: Model | None = None
    coreset: Blob | None = None
    deployed: Model | None = None
    """The student that the candidate would replace, where the site takes no part."""
    rebased_cycle_id: str = ""
    """In a rebase: the cycle whose release is carried over, so that the site knows what it has agreed to."""

    @property
    def blobs(self) -> list[Blob]:
        """The blobs that the site needs for the task, and so may read while it is open."""
        if self.deployed is not None and self.student is not None:
            return [model.onnx for model in (self.deployed, self.student) if model.onnx is not None]
        if self.tutor is None or self.student is None:
            return []
        if self.task.kind is TaskKind.EXTRACT:
            wanted = [self.tutor.weights, self.student.weights, self.coreset]
        else:
            oracle = self.task.cycle.recipe.get("labels") == "oracle"
            wanted = [self.student.onnx, self.tutor.weights if oracle else None]
        return [blob for blob in wanted if blob is not None]


@dataclass(frozen=True)
class Policy:
    """What a site decides by itself; it says so when it opens its stream."""

    auto_approve: bool
    publish_style: bool = False
    validates_external: bool = False


@dataclass(frozen=True)
class Group:
    """Sites for which a cycle's release may be (`cloud_server.scopes`)."""

    name: str
    sites: tuple[str, ...]


@dataclass(frozen=True)
class GroupChange:
    """A group as it is now, and what follows for the devices of sites that have joined or left it, for people."""

    group: Group
    effects: tuple[str, ...]


@dataclass(frozen=True)
class SiteView:
    """A site as operators see it."""

    site: Site
    online: bool
    devices: int
    cycle_id: str
    group: str


class SiteService:
    """Give sites their tasks and take their results."""

    def __init__(self, context: CloudContext, validator: GapValidator) -> None:
        self._context = context
        self._validator = validator
        self._validating: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def deny_list(self) -> int:
        """Return the number of the newest deny list."""
        return self._context.deny_list

    @property
    def max_manifest_bytes(self) -> int:
        """The size of the largest manifest that is taken."""
        return self._context.quotas.manifest_bytes

    async def watch(self, actor: Identity, site: str, policy: Policy) -> AsyncGenerator[Assignment | None]:
        """Yield a site's open tasks, then each one that is new or has changed.

        Args:
            actor: The caller.
            site: The site's name, which must be the caller's own.
            policy: Whether the site approves by itself and publishes its style.

        Yields:
            A task, or None where there was none within the keep-alive interval, or is a newer deny list.

        Raises:
            Refused: The caller is not that site.
        """
        authorization.require_site(actor, site)
        context, topic = self._context, site_topic(site)
        sent: set[tuple[str, bool]] = set()
        deny_list = 0
        with context.track_stream(f"site/{site}"):
            while True:
                seen_version = context.notifier.version(topic)
                # A task is recorded as offered before it is sent.
                for assignment in await context.write(lambda r, now: _offer_tasks(r, site, policy, now)):
                    if assignment.task.key not in sent:
                        sent.add(assignment.task.key)
                        yield assignment
                if deny_list != context.deny_list:
                    deny_list = context.deny_list
                    yield None
                if not await context.notifier.wait_for_change(topic, seen_version, context.keep_alive_s):
                    yield None

    async def report_progress(self, actor: Identity, cycle_id: str, progress: Progress) -> None:
        """Record how far a site's extraction is; the first report says that it has begun.

        Raises:
            NotFound: There is no such cycle.
            Refused: The caller is not a site of the cycle.
            WrongState: The site is not extracting.
        """
        await self._context.write_for_site(
            actor, cycle_id, lambda r, now: transitions.report_progress(r, cycle_id, actor.name, progress, now)
        )

    async def propose_classes(
        self, actor: Identity, cycle_id: str, names: Sequence[str], distinct: Collection[str] = ()
    ) -> LabelSpace:
        """Give ids to class names and return the whole label space. Names that are known keep their ids.

        Args:
            actor: The caller.
            cycle_id: The cycle in which the site wants to teach them.
            names: Class names.
            distinct: Those of which the site has said that they are classes of their own, whatever they are like.

        Raises:
            InvalidInput: A new name may mean a known class, or another new one. Then no name gets an id.
            NotFound: There is no such cycle.
            Refused: The caller is not a site of the cycle.
            WrongState: The site has not approved the cycle, or its gap has been uploaded.
            NoRoom: The new names are too many for the cycle, the site or the label space.
        """
        return await self._context.write_for_site(
            actor,
            cycle_id,
            lambda r, now: transitions.propose_classes(
                r, cycle_id, actor.name, names, now, distinct, self._context.quotas
            ),
        )

    async def submit_gap(self, actor: Identity, manifest: GapManifest, certificate: str) -> None:
        """Verify a gap and record it. After a refusal every store is as it was. The same gap again changes nothing.

        Args:
            actor: The caller.
            manifest: What the site says about its gap.
            certificate: PEM of the certificate whose key signed the manifest.

        Raises:
            NotFound: There is no such cycle.
            Refused: The caller is not a site of the cycle.
            WrongState: The site is not extracting, a blob is missing, or the gap has another base.
            InvalidInput: The manifest and the gap do not agree.
            NoRoom: The gap is larger than its base model.
            CorruptData: The gap cannot be decoded.
        """
        authorization.require_viewer_or_site(actor)
        bases = await self._context.read(lambda r: _find_bases(r, actor, manifest))
        if bases is None:
            return
        async with self._validating[actor.name]:  # a site that submits again and again waits for itself, nobody for it
            await asyncio.to_thread(self._validator.validate, manifest, *bases)
        await self._context.write_for_site(
            actor,
            manifest.cycle_id,
            lambda r, now: transitions.accept_gap(r, actor.name, manifest, certificate, now),
        )

    async def submit_validation(
        self, actor: Identity, cycle_id: str, after: DetectionMetrics, before: DetectionMetrics | None = None
    ) -> None:
        """Record how the new release does on a site's held-out images.

        Args:
            actor: The caller.
            cycle_id: The cycle.
            after: Metrics of the new release.
            before: Metrics of the release that it would replace, of a site that takes no part; None of the others.

        Raises:
            NotFound: There is no such cycle.
            Refused: The caller is not a site of the cycle, nor one that was asked.
            WrongState: The cycle waits for no validation of this site.
        """
        if before is not None:
            await self._context.write_for_site(
                actor,
                cycle_id,
                lambda r, now: transitions.accept_external(r, cycle_id, actor.name, before, after, now),
                external=True,
            )
            return
        await self._context.write_for_site(
            actor, cycle_id, lambda r, now: transitions.accept_validation(r, cycle_id, actor.name, after, now)
        )

    async def fail_task(self, actor: Identity, task_id: str, reason: str) -> None:
        """Record that a site cannot do a task. A task that is over changes nothing.

        Raises:
            InvalidInput: That is not the id of a task.
            NotFound: There is no such cycle.
            Refused: The caller is not a site of the cycle.
        """
        cycle_id, kind = parse_task_id(task_id)
        await self._context.write_for_site(
            actor,
            cycle_id,
            lambda r, now: transitions.fail_task(r, cycle_id, kind, actor.name, reason, now),
            external=kind is TaskKind.VALIDATE_EXTERNAL,
        )

    async def set_group(self, actor: Identity, name: str, sites: Sequence[str]) -> GroupChange:
        """Make a group of sites, or give one other sites, and return what has become of it.

        Args:
            actor: The caller.
            name: The group's name.
            sites: All its sites.

        Raises:
            Refused: The caller is not an operator.
            InvalidInput: The name or the list of sites is not usable.
            NotFound: A site has never called.
            WrongState: A site is in another group, or a cycle of the group is under way.
        """
        authorization.require_operator(actor)
        check_group_name(name)
        if not sites or len(set(sites)) != len(sites):
            raise InvalidInput(f"group {name!r} needs one site or more, each once: name them all, or remove the group")

        def change(r: Repository, _now: datetime) -> GroupChange:
            groups = r.groups.by_site()
            for site in sites:
                r.sites.get(site)
                if groups.get(site, name) != name:
                    raise WrongState(f"site {site!r} is in group {groups[site]!r}: take it out there first")
            return _set_members(r, name, sites)

        return await self._context.write(change)

    async def remove_group(self, actor: Identity, name: str) -> GroupChange:
        """Remove a group and return what has become of it. Its releases reach nobody then.

        Its devices run the release of their site, or else the fleet's.

        Raises:
            Refused: The caller is not an operator.
            NotFound: There is no such group.
            WrongState: A cycle of the group is under way.
        """
        authorization.require_operator(actor)

        def remove(r: Repository, _now: datetime) -> GroupChange:
            if not r.groups.members(name):
                raise NotFound(f"there is no group {name[:80]!r}: `diredi group list` names them")
            return _set_members(r, name, ())

        return await self._context.write(remove)

    async def list_groups(self, actor: Identity, after: str = "") -> list[Group]:
        """Return the groups behind the name `after`, by name.

        Raises:
            Refused: The caller is not a person.
        """
        authorization.require_viewer(actor)
        groups = await self._context.read(lambda r: r.groups.by_site())
        return [
            Group(name, tuple(site for site, group in groups.items() if group == name))
            for name in sorted(set(groups.values()))
            if name > after
        ]

    async def get_site(self, actor: Identity, name: str) -> SiteView:
        """Return a site as operators see it.

        Raises:
            Refused: The caller is not a person.
            NotFound: The site has never called.
        """
        authorization.require_viewer(actor)
        online = set(self._context.open_streams)
        return await self._context.read(lambda r: _site_views(r, [r.sites.get(name)], online)[0])

    async def list_sites(self, actor: Identity, after: str = "", limit: int | None = None) -> list[SiteView]:
        """Return the sites that have ever called, by name: those behind the name `after`, at most `limit`.

        Raises:
            Refused: The caller is not a person.
        """
        authorization.require_viewer(actor)
        online = set(self._context.open_streams)
        return await self._context.read(lambda r: _site_views(r, r.sites.all(after, limit), online))


def _site_views(r: Repository, sites: Sequence[Site], online: Collection[str]) -> list[SiteView]:
    devices, groups = r.devices.count_by_site(), r.groups.by_site()
    cycle_ids = {part.site: cycle.id for cycle in r.cycles.unfinished() for part in cycle.active_parts}
    return [
        SiteView(
            site, f"site/{site.name}" in online, devices.get(site.name, 0), cycle_ids.get(site.name, ""),
            groups.get(site.name, ""),
        )
        for site in sites
    ]  # fmt: skip


def _set_members(r: Repository, name: str, sites: Sequence[str]) -> GroupChange:
    """Give a group these sites, and say what that does to those that have joined or left it.

    Raises:
        WrongState: A cycle of the group is under way.
    """
    moved = set(sites) ^ set(r.groups.members(name))
    if not moved:
        return GroupChange(Group(name, tuple(sites)), ())
    _check_no_cycle(r, name)
    before = {site: _find_release(r, site) for site in moved}
    r.groups.set(name, sites)
    effects = [_describe_move(r, site, before[site], _find_release(r, site)) for site in sorted(moved)]
    return GroupChange(Group(name, tuple(r.groups.members(name))), tuple(filter(None, effects)))


def _find_release(r: Repository, site: str) -> Release | None:
    return r.releases.current(scopes_of(site, r.groups.of_site(site)))


def _describe_move(r: Repository, site: str, before: Release | None, after: Release | None) -> str:
    """Say which other release a site's devices get, and what they lose by it; empty where they keep theirs."""
    if before is None or after is None or before.version == after.version:
        return ""
    names = r.models.get(after.student_id).labels.names
    lost = [name for name in r.models.get(before.student_id).labels.names if name not in names]
    move = f"release {before.version} ({before.scope}) to release {after.version} ({after.scope})"
    return f"the devices of {site} go from {move}" + (f", which does not know {', '.join(lost)}" if lost else "")


def _check_no_cycle(r: Repository, group: str) -> None:
    """Raises WrongState while a cycle of the group is under way: whom it is for must not change on the way."""
    running = next((cycle for cycle in r.cycles.unfinished() if cycle.scope == group_scope(group)), None)
    if running is not None:
        raise WrongState(f"group {group!r} has cycle {running.id} under way ({running.state}): wait until it ends")


def _offer_tasks(r: Repository, site: str, policy: Policy, now: datetime) -> list[Assignment]:
    """Offer the site what waits for it and return its open tasks, oldest first."""
    r.sites.record_contact(site, now, policy.auto_approve, policy.validates_external)
    for cycle in r.cycles.recent(site, _LOOK_BACK):
        if cycle.state in BEFORE_UPLOAD:
            transitions.offer(
                r, cycle.id, site, now, auto_approve=policy.auto_approve, publish_style=policy.publish_style
            )
    return list_assignments(r, site)


def list_assignments(r: Repository, site: str) -> list[Assignment]:
    """Return a site's open tasks, oldest first, with what it needs for them; those of its own cycles come first."""
    own = reversed(open_tasks(r.cycles.recent(site, _LOOK_BACK), site))
    others = external_tasks(r.cycles.unfinished(states=[State.CANARY]), site)
    return [_assign(r, task) for task in (*own, *others)]


def _assign(r: Repository, task: Task) -> Assignment:
    cycle = task.cycle
    match task.kind:
        case TaskKind.EXTRACT:
            tutor, student = r.models.get(cycle.base_tutor_id), r.models.get(cycle.base_student_id)
            return Assignment(task, tutor, student, r.facts.coreset)
        case TaskKind.VALIDATE:
            tutor = r.models.get(cycle.base_tutor_id)  # the oracle, where the recipe wants one
            rebased = r.releases.get(cycle.rebases).cycle_id if cycle.rebases else ""
            return Assignment(task, tutor, r.models.get(cycle.updated_student_id), rebased_cycle_id=rebased)
        case TaskKind.VALIDATE_EXTERNAL:
            candidate, deployed = r.models.get(cycle.updated_student_id), r.models.get(cycle.base_student_id)
            return Assignment(task, student=candidate, deployed=deployed)
        case TaskKind.CANCEL:
            return Assignment(task)


def _find_bases(r: Repository, actor: Identity, manifest: GapManifest) -> tuple[Model, Model] | None:
    """Return the tutor and student that the gaps are differences to; None if this gap has been accepted before."""
    cycle = r.cycles.get(manifest.cycle_id, r.visible_to(actor))
    authorization.require_member_site(actor, cycle.sites)
    if transitions.check_manifest(r, actor.name, manifest):
        return None
    gaps = {"tutor gap": manifest.tutor_gap, "student gap": manifest.student_gap}
    for what, gap in gaps.items():
        if gap is not None and not r.uploads.is_complete(gap.blob.digest, actor.name):
            raise WrongState(f"the blob of the {what}, {gap.blob.digest}, is not complete here: put it first")
    return r.models.get(cycle.base_tutor_id), r.models.get(cycle.base_student_id)
