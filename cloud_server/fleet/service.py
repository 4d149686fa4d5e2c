"""What devices say to the cloud and hear from it. A watcher costs a task: no thread, no query while nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from cloud_server import authorization, canary
from cloud_server.context import CloudContext
from cloud_server.cycles import transitions
from cloud_server.entities import Cycle, Device, Install, Model, Outcome, Release, Vitals, device_key
from cloud_server.notifier import RELEASES
from cloud_server.states import State
from cloud_server.store.repository import Repository
from diredi.errors import InvalidInput, NoRoom, Unreachable
from diredi.trust.identity import Identity

_log = structlog.get_logger()
_ONLINE_FOR: Final = timedelta(seconds=45)
_FLUSH_EVERY_S: Final = 5.0
_MAX_REASON: Final = 500


@dataclass(frozen=True)
class Deployment:
    """A release and the student it is."""

    release: Release
    student: Model


@dataclass(frozen=True)
class DeviceView:
    device: Device
    online: bool


class FleetService:
    def __init__(self, context: CloudContext) -> None:
        self._context = context
        self._deployments: dict[int, Deployment] = {}
        self._deployments_version = -1
        self._loading = asyncio.Lock()
        self._heard: dict[tuple[str, str], tuple[datetime, Vitals]] = {}
        """Site and device to when and what they said last; not stored yet."""

    async def register(self, actor: Identity, device: str, site: str, release_version: int) -> None:
        authorization.require_device(actor, device, site)
        now, vitals = self._context.now(), Vitals(release_version=release_version)
        await self._context.database.write(lambda r: r.devices.record_contact(device, site, now, vitals))

    async def heartbeat(self, actor: Identity, device: str, vitals: Vitals) -> None:
        """Kept in memory and stored with all others every few seconds: thousands of devices are one transaction."""
        authorization.require_device(actor, device)
        self._heard[actor.site, device] = (self._context.now(), vitals)

    async def watch(self, actor: Identity, device: str) -> AsyncGenerator[Deployment | None]:
        """The release this device should run: now, after each change, and every 15 s. None: there is none yet."""
        authorization.require_device(actor, device)
        context = self._context
        key = device_key(actor.site, device)
        with context.track_stream(f"device/{key}"):
            said: int | None = None
            while True:
                seen_version = context.notifier.version(RELEASES)
                deployment = await self._deployment_for(key)
                version = 0 if deployment is None else deployment.release.version
                if version != said:
                    said = version
                    yield deployment
                if not await context.notifier.wait_for_change(RELEASES, seen_version, context.keep_alive_s):
                    yield deployment

    async def report_install(self, actor: Identity, device: str, install: Install) -> None:
        """Recorded, and the cycle whose canary this is decided, in one transaction."""
        authorization.require_device(actor, device)
        if install.release_version < 1:
            raise InvalidInput("an installation is of a release: its version must be above 0")
        now, key = self._context.now(), device_key(actor.site, device)

        def record(r: Repository) -> list[Cycle]:
            r.releases.get(install.release_version)
            known = r.devices.find(key)
            r.devices.record_contact(
                device, actor.site, now, Vitals() if known is None else Vitals.model_validate(known)
            )
            r.devices.record_install(key, install.model_copy(update={"reason": install.reason[:_MAX_REASON]}))
            waiting = r.cycles.unfinished(states=[State.CANARY])
            mine = [c for c in waiting if c.release_version == install.release_version]
            return [transitions.decide_canary(r, cycle.id, str(actor), now) for cycle in mine]

        if (actor.site, device) in self._heard and install.outcome is Outcome.INSTALLED:
            at, vitals = self._heard[actor.site, device]
            runs = {"release_version": install.release_version}
            self._heard[actor.site, device] = (at, vitals.model_copy(update=runs))
        for cycle in await self._context.database.write(record):
            self._context.moved(cycle)

    async def devices(self, actor: Identity, site: str) -> list[DeviceView]:
        authorization.require_operator(actor)
        await self.flush()
        now, open_streams = self._context.now(), set(self._context.open_streams)
        return [
            DeviceView(device, f"device/{device.key}" in open_streams or now - device.last_seen < _ONLINE_FOR)
            for device in await self._context.database.read(lambda r: r.devices.of_site(site))
        ]

    async def run(self) -> None:
        """Stores heartbeats until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_EVERY_S)
            try:
                await self.flush()
            except (Unreachable, NoRoom) as error:
                _log.warning("heartbeats not stored", error=str(error))

    async def flush(self) -> None:
        heard = dict(self._heard)
        if heard:

            def store(r: Repository) -> None:
                for (site, device), (at, vitals) in heard.items():
                    r.devices.record_contact(device, site, at, vitals)

            await self._context.database.write(store)
            for who, word in heard.items():
                if self._heard.get(who) == word:
                    del self._heard[who]

    async def _deployment_for(self, key: str) -> Deployment | None:
        async with self._loading:
            version = self._context.notifier.version(RELEASES)
            if version != self._deployments_version:
                self._deployments = await self._context.database.read(_deployments)
                self._deployments_version = version
        release = canary.select_release(key, [deployment.release for deployment in self._deployments.values()])
        return None if release is None else self._deployments[release.version]


def _deployments(r: Repository) -> dict[int, Deployment]:
    return {release.version: Deployment(release, r.models.get(release.student_id)) for release in r.releases.all()}
