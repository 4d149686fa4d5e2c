"""The application layer of the fleet: what devices report, and which release they should run.

A device that watches costs one task. It costs no thread, and no query while nothing changes.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from cloud_server import authorization, canary
from cloud_server.context import CloudContext
from cloud_server.cycles import transitions
from cloud_server.cycles.rebase import explain_stale
from cloud_server.entities import Device, Install, Json, Model, Outcome, Release, Vitals, device_key
from cloud_server.fleet import rollout
from cloud_server.fleet.publication import list_targets
from cloud_server.fleet.rollout import Health
from cloud_server.notifier import CYCLES, RELEASES
from cloud_server.rollout_rules import DetectionBounds
from cloud_server.scopes import in_scope, scopes_of
from cloud_server.states import State
from cloud_server.store import Repository
from cloud_server.store.log import LogEntry
from diredi.errors import InvalidInput, NoRoom, NotFound, Unreachable, WrongState
from diredi.store.blobs import Blob, BlobStore
from diredi.trust.identity import Identity
from diredi.trust.release_repository import ReleaseRepository, Unsigned, possession_of

_log = structlog.get_logger()
_ONLINE_FOR: Final = timedelta(seconds=45)
_FLUSH_EVERY_S: Final = 5.0
_PUBLISH_EVERY_S: Final = 3600.0
_MAX_REASON: Final = 500


@dataclass(frozen=True)
class Deployment:
    """A release together with the student that it ships."""

    release: Release
    student: Model
    target: str = ""
    """Its path in the signed metadata; empty where it is not published."""


@dataclass(frozen=True)
class RolloutReport:
    """A release in its rollout, and how it does."""

    release: Release
    health: Health
    decisions: list[LogEntry]
    """What was decided, oldest first; empty where nobody asked for this release alone."""


@dataclass(frozen=True)
class DeviceView:
    """A device as operators see it."""

    device: Device
    online: bool
    scope: str
    """That of the release that runs there; empty where none does."""
    lacks: str
    """What the scope's release does not stand on, and why; empty: it stands on the newest."""


class FleetService:
    """Tell devices of releases and record what they report."""

    def __init__(
        self, context: CloudContext, repository: ReleaseRepository, blobs: BlobStore, bounds: DetectionBounds
    ) -> None:
        self._context = context
        self._repository = repository
        self._blobs = blobs
        self._bounds = bounds
        self._deployments: dict[int, Deployment] = {}
        self._groups: dict[str, str] = {}
        self._deployments_version = -1
        self._loading = asyncio.Lock()
        self._waiting: frozenset[tuple[str, int]] = frozenset()
        """Name and version of the metadata that wait for signatures, as they were said last."""
        self._pending: dict[tuple[str, str], tuple[datetime, Vitals]] = {}
        """Last heartbeat and its time by site and device, where it is not stored yet."""

    async def register(self, actor: Identity, device: str, site: str, release_version: int) -> None:
        """Record a device, its site and the release that it runs (0: none).

        Raises:
            Refused: The caller is not that device of that site.
        """
        authorization.require_device(actor, device, site)
        vitals = Vitals(release_version=release_version)

        def record(r: Repository, now: datetime) -> int:
            r.devices.record_contact(device, site, now, vitals)
            return r.releases.last_version()

        last = await self._context.write(record)
        if release_version > last:
            _log.error("release_unknown", device=device_key(site, device), release=release_version, newest=last)

    async def heartbeat(self, actor: Identity, device: str, vitals: Vitals) -> None:
        """Note a heartbeat in memory; `run` stores those of all devices in one transaction every few seconds.

        Raises:
            Refused: The caller is not that device.
        """
        authorization.require_device(actor, device)
        self._pending[actor.site, device] = (self._context.now(), vitals)

    @property
    def deny_list(self) -> int:
        """Return the number of the newest deny list."""
        return self._context.deny_list

    async def watch(self, actor: Identity, device: str) -> AsyncGenerator[Deployment | None]:
        """Yield the release that a device should run: now, after each change, and at the keep-alive interval.

        It is yielded again when there is a newer deny list.

        Yields:
            The release with its student; None where there is none yet.

        Raises:
            Refused: The caller is not that device.
        """
        authorization.require_device(actor, device)
        context = self._context
        sent: tuple[int, int] | None = None
        with context.track_stream(f"device/{device_key(actor.site, device)}"):
            while True:
                seen_version = context.notifier.version(RELEASES)
                deployment = await self._find_deployment(actor.site, device)
                version = 0 if deployment is None else deployment.release.version
                if sent != (version, context.deny_list):
                    sent = version, context.deny_list
                    yield deployment
                if not await context.notifier.wait_for_change(RELEASES, seen_version, context.keep_alive_s):
                    yield deployment

    async def metadata(self, actor: Identity, name: str) -> bytes:
        """Return a file of the signed metadata of releases.

        Raises:
            NotFound: There is no such file for the caller.
        """

        def read() -> bytes:
            scope = self._repository.scope_of(name)
            if scope is not None:
                visible = self._context.database.transact(lambda r: r.visible_to(actor), writes=False)
                if not in_scope(scope, visible):
                    raise NotFound(f"there are no metadata {name!r}")
            self._repository.refresh(self._context.now())
            return self._repository.read(name)

        return await asyncio.to_thread(read)

    def challenge(self, actor: Identity, version: int) -> bytes:
        """Return what a device has to hash together with the file of a release, to prove that it has it."""
        return self._repository.challenge(device_key(actor.site, actor.name), version)

    async def _check_possession(self, actor: Identity, version: int, possession: bytes) -> None:
        """Believe a canary that it has installed a release only if it has its file."""
        key = device_key(actor.site, actor.name)

        def find_canary_file(r: Repository) -> Blob | None:
            release = r.releases.get(version, r.visible_to(actor))
            return r.models.get(release.student_id).onnx if key in release.canaries else None

        file = await self._context.read(find_canary_file)
        if file is None:
            return
        challenge, chunks = self.challenge(actor, version), self._blobs.chunks(file.digest)
        if not hmac.compare_digest(possession, await asyncio.to_thread(possession_of, challenge, chunks)):
            raise InvalidInput(
                f"{actor} does not prove that it has the file of release {version}: update its software, and look at it"
            )

    async def report_install(
        self, actor: Identity, device: str, install: Install, possession: bytes = b"", signed: Json | None = None
    ) -> None:
        """Record an installation and decide the cycle for which this device is a canary, in one transaction.

        Args:
            actor: The caller.
            device: The device.
            install: What it reports.
            possession: The proof that it has the file.
            signed: The report with its signature, and the certificate that it was verified with; a canary's is logged.

        Raises:
            Refused: The caller is not that device.
            InvalidInput: The version is below 1, or a canary does not prove that it has the file.
            NotFound: There is no such release, or it is not for the device's site.
        """
        authorization.require_device(actor, device)
        if install.release_version < 1:
            raise InvalidInput("an installation is of a release: its version must be above 0")
        if install.outcome is Outcome.INSTALLED:
            await self._check_possession(actor, install.release_version, possession)
        key = device_key(actor.site, device)
        install = install.model_copy(update={"reason": install.reason[:_MAX_REASON]})

        def record(r: Repository, now: datetime) -> None:
            release = r.releases.get(install.release_version, r.visible_to(actor))
            known = r.devices.find(key)
            vitals = Vitals() if known is None else Vitals.model_validate(known)
            r.devices.record_contact(device, actor.site, now, vitals)
            is_new = r.devices.record_install(key, install, self._context.quotas.installs_per_device)
            if is_new and key in release.canaries:
                r.log.record_install(key, install, signed or {}, now)
            for cycle in r.cycles.unfinished(states=[State.CANARY]):
                if cycle.release_version == install.release_version:
                    transitions.decide_canary(r, cycle.id, str(actor), now)

        if (actor.site, device) in self._pending and install.outcome is Outcome.INSTALLED:
            at, vitals = self._pending[actor.site, device]
            if vitals.release_version != install.release_version:
                update = {"release_version": install.release_version, "detection": None}
                self._pending[actor.site, device] = (at, vitals.model_copy(update=update))
        await self._context.write(record)

    async def list_devices(
        self, actor: Identity, site: str, after: str = "", limit: int | None = None
    ) -> list[DeviceView]:
        """Return the devices of one site, or of all where `site` is empty, by name.

        Args:
            actor: The caller.
            site: The site.
            after: Only devices behind the one with this key; empty: all.
            limit: At most so many; None: all.

        Raises:
            Refused: The caller is not a person.
        """
        authorization.require_viewer(actor)
        await self.flush()
        now, open_streams = self._context.now(), set(self._context.open_streams)

        def query(r: Repository) -> tuple[list[Device], dict[int, str], dict[str, str]]:
            devices = r.devices.of_site(site, after, limit)
            scopes = {release.version: release.scope for release in r.releases.all()}
            run = {scopes[device.release_version] for device in devices if device.release_version in scopes}
            return devices, scopes, {scope: explain_stale(r, scope) for scope in run}

        devices, scopes, lacks = await self._context.read(query)
        return [
            DeviceView(
                device,
                f"device/{device.key}" in open_streams or now - device.last_seen < _ONLINE_FOR,
                scopes.get(device.release_version, ""),
                lacks.get(scopes.get(device.release_version, ""), ""),
            )
            for device in devices
        ]

    async def lineage(self, actor: Identity, version: int) -> list[tuple[int, tuple[int, ...], LogEntry]]:
        """Return a release and all that it stands on, newest first: version, parents, and its entry in the log.

        Raises:
            Refused: The caller is not a person.
            NotFound: There is no such release.
        """
        authorization.require_viewer(actor)

        def read(r: Repository) -> list[tuple[int, tuple[int, ...], LogEntry]]:
            r.releases.get(version)
            parents, entries = r.releases.parents(), r.log.of_releases()
            found, following = set[int](), [version]
            while following:
                found.add(number := following.pop())
                following += [parent for parent in parents[number] if parent not in found]
            return [(number, parents[number], entries[number]) for number in sorted(found, reverse=True)]

        return await self._context.read(read)

    async def rollouts(self, actor: Identity, version: int = 0) -> list[RolloutReport]:
        """Return the releases whose rollout is under way, newest first, and how they do.

        Args:
            actor: The caller.
            version: Only this release, also where its rollout is over, with what was decided; 0: all under way.

        Raises:
            Refused: The caller is not a person.
            NotFound: There is no such release.
            WrongState: It never was in a rollout.
        """
        authorization.require_viewer(actor)
        await self.flush()

        def read(r: Repository) -> list[RolloutReport]:
            found = [r.releases.get(version)] if version else canary.under_way(r.releases.all())
            if version and found[0].rollout is None:
                raise WrongState(
                    f"release {version} was for all devices at once: `diredi rollout list` shows the others"
                )
            health = rollout.measure_all(r, found, self._bounds) if found else {}
            decisions = r.log.about(f"rollout/{version}/") if version else []
            return [RolloutReport(release, health[release.version], decisions) for release in found]

        return await self._context.read(read)

    async def change_rollout(self, actor: Identity, version: int, change: str, percent: int, reason: str) -> int:
        """Change a rollout, and return the release that devices run then.

        Args:
            actor: The caller.
            version: The release.
            change: PAUSE, RESUME or ABORT.
            percent: With RESUME, the share that gets it at least; 0: where it was.
            reason: Why, for the log of decisions.

        Raises:
            Refused: The caller is not an operator.
            WrongState: The release is in no rollout.
            InvalidInput: The change or the share is none.
        """
        authorization.require_operator(actor)
        reason = reason[:_MAX_REASON]

        def act(r: Repository, now: datetime) -> int:
            match change:
                case "PAUSE":
                    return rollout.pause(r, version, reason, str(actor), now).version
                case "RESUME":
                    return rollout.resume(r, version, str(actor), now, percent).version
                case "ABORT":
                    return rollout.abort(r, version, reason, str(actor), now).version
            raise InvalidInput("a rollout can be paused, resumed or aborted: say which of these")

        return await self._context.write(act)

    async def add_note(self, actor: Identity, model_id: str, text: str) -> str:
        """Put what a person says about a model into the log of decisions, and return the model's whole id.

        Raises:
            Refused: The caller is not an operator.
            NotFound: There is no such model.
        """
        authorization.require_operator(actor)

        def add(r: Repository, now: datetime) -> str:
            model = r.models.get(model_id)
            r.log.record_note(model.id, str(actor), text, now)
            return model.id

        return await self._context.write(add)

    async def list_unsigned(self, actor: Identity) -> list[Unsigned]:
        """Return the metadata that wait for signatures.

        Raises:
            Refused: The caller is not an operator.
        """
        authorization.require_operator(actor)
        await self._publish()
        return await asyncio.to_thread(self._repository.unsigned)

    async def add_signatures(self, actor: Identity, name: str, metadata: bytes) -> bool:
        """Add somebody's signatures to metadata that wait for them, and return whether they are published by it.

        Raises:
            Refused: The caller is not an operator.
            InvalidInput: No key has signed that counts.
            WrongState: These metadata are not what waits.
        """
        authorization.require_operator(actor)
        now = self._context.now()
        added = await asyncio.to_thread(self._repository.add_signatures, name, metadata, now)
        _log.info("signatures_added", metadata=name[:40], caller=str(actor), published=added.published)
        await self._context.write(lambda r, now: r.log.record_signatures(name, str(actor), added.keyids, now))
        if added.published:
            await self._publish(again=True)
            self._context.notifier.notify(RELEASES)
        return added.published

    def is_published(self, version: int) -> bool:
        """Return whether devices may be told to run a release: it is signed by enough keys."""
        return version in self._deployments

    async def run(self) -> None:
        """Store heartbeats, and publish what has changed, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_stored())
            group.create_task(self._keep_published())
            group.create_task(self._keep_head_signed())

    async def _keep_published(self) -> None:
        while True:
            seen_version = self._context.notifier.version(RELEASES)
            try:
                await self._publish(again=True)
            except (Unreachable, NoRoom, OSError) as error:
                _log.warning("releases_not_published", error=str(error))
            await self._context.notifier.wait_for_change(RELEASES, seen_version, _PUBLISH_EVERY_S)

    async def sign_head(self) -> None:
        """Sign how far the log of decisions is."""
        tree = await self._context.read(lambda r: r.log.frontier())
        await asyncio.to_thread(self._repository.sign_head, tree.size, tree.root, self._context.now())

    async def _keep_head_signed(self) -> None:
        """Sign how far the log of decisions is, after each decision."""
        while True:
            seen_version = self._context.notifier.version(CYCLES)
            try:
                await self.sign_head()
            except (Unreachable, NoRoom, OSError) as error:
                _log.warning("log_head_not_signed", error=str(error))
            await self._context.notifier.wait_for_change(CYCLES, seen_version, _PUBLISH_EVERY_S)

    async def _keep_stored(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY_S)
            try:
                await self.flush()
            except (Unreachable, NoRoom) as error:
                _log.warning("heartbeats_not_stored", error=str(error))

    async def flush(self) -> None:
        """Store the heartbeats that are only in memory."""
        pending = dict(self._pending)
        if not pending:
            return

        def store(r: Repository, _now: datetime) -> None:
            for (site, device), (at, vitals) in pending.items():
                r.devices.record_contact(device, site, at, vitals)

        await self._context.write(store)
        for key, heartbeat in pending.items():
            if self._pending.get(key) == heartbeat:  # else a newer one came while this one was stored
                del self._pending[key]

    async def _find_deployment(self, site: str, device: str) -> Deployment | None:
        """Return what a device should run; the releases are read and published again only after they have changed."""
        await self._publish()
        scopes = scopes_of(site, self._groups.get(site, ""))
        releases = [deployment.release for deployment in self._deployments.values()]
        release = canary.select_release(device_key(site, device), releases, scopes)
        return None if release is None else self._deployments[release.version]

    async def _publish(self, *, again: bool = False) -> None:
        """Sign and publish what has changed since the last time.

        Args:
            again: Whether to do so though the database has not changed: a signature came, or time has passed.
        """
        async with self._loading:
            version = self._context.notifier.version(RELEASES)
            if again or version != self._deployments_version:
                deployments, self._groups, logged = await self._context.read(
                    lambda r: (
                        {item.version: Deployment(item, r.models.get(item.student_id)) for item in r.releases.all()},
                        r.groups.by_site(),
                        r.log.of_releases(),
                    )
                )
                targets = list_targets([(d.release, d.student) for d in deployments.values()], self._groups, logged)
                known = {deployment.release.scope for deployment in deployments.values()}
                published = await asyncio.to_thread(self._repository.publish, targets, self._context.now(), known)
                self._deployments = {
                    number: replace(deployments[number], target=target)
                    for number, target in published.items()
                    if number in deployments
                }
                self._deployments_version = version
                self._say_what_waits(await asyncio.to_thread(self._repository.unsigned))

    def _say_what_waits(self, unsigned: Sequence[Unsigned]) -> None:
        waiting = frozenset((entry.name, entry.metadata.signed.version) for entry in unsigned)
        if waiting and waiting != self._waiting:
            missing = min(entry.threshold - len(entry.metadata.signatures) for entry in unsigned)
            _log.warning("releases_wait_for_signatures", metadata=len(unsigned), missing=missing)
        self._waiting = waiting
