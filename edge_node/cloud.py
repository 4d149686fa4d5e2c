"""The node's side of FleetService: registers, says that it lives, hears of releases, reports. It dials out, always."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import ValidationError

from diredi.errors import DirediError, InvalidInput
from diredi.rpc import blobs, convert
from diredi.rpc.client import Channel, call
from diredi.rpc.retry import Backoff
from diredi.rpc.streams import watch_stream
from diredi.rpc.v1 import fleet_pb2 as pb
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
from diredi.store.blobs import Blob
from edge_node.telemetry import Telemetry
from edge_node.update_states import InstallableRelease


class CloudLink:
    """`online` says whether the cloud answered last; going away and coming back are each said once."""

    def __init__(self, channel: Channel, device: str, site: str, *, heartbeat_s: float, silence_s: float) -> None:
        self._fleet = FleetServiceStub(channel)
        self._blobs = BlobServiceStub(channel)
        self._device = device
        self._site = site
        self._heartbeat_s = heartbeat_s
        self._silence_s = silence_s
        self._log = structlog.get_logger()
        self._registered = False
        self._said: bool | None = None
        self.last_error = ""

    @property
    def online(self) -> bool:
        return bool(self._said)

    async def watch_releases(self, on_release: Callable[[InstallableRelease], None]) -> None:
        """For ever; hands on every release that the cloud names. One that makes no sense is logged and passed over."""
        request = pb.WatchReleasesRequest(device=self._device)
        while True:
            try:
                async for answer in watch_stream(
                    lambda: self._fleet.WatchReleases(request),
                    silence_s=self._silence_s,
                    backoff=Backoff(0.2, 5.0),
                    on_online=self._note,
                ):
                    if answer.HasField("release"):
                        self._forward(answer.release, on_release)
            except DirediError as error:  # refused or unknown: an operator may put that right while we run
                self._note(False, str(error))
            await asyncio.sleep(self._heartbeat_s)

    async def heartbeat(self, telemetry: Telemetry, version: Callable[[], int]) -> None:
        """For ever. A cloud that was away hears of the device anew before the next heartbeat."""
        while True:
            try:
                await self._register_once(version())
                await self._beat(telemetry, version())
                self._note(True, "")
            except DirediError as error:
                self._registered = False
                self._note(False, str(error))
            await asyncio.sleep(self._heartbeat_s if self._registered else min(2.0, self._heartbeat_s))

    async def _register_once(self, version: int) -> None:
        if not self._registered:
            request = pb.RegisterDeviceRequest(device=self._device, site=self._site, release_version=version)
            await call(self._fleet.RegisterDevice, request, deadline_s=10)
            self._registered = True

    async def _beat(self, telemetry: Telemetry, version: int) -> None:
        rates = telemetry.rates()
        request = pb.HeartbeatRequest(
            device=self._device,
            release_version=version,
            frames=rates.frames,
            frames_per_second=rates.frames_per_second,
            latency_ms=rates.latency_ms,
        )
        await call(self._fleet.Heartbeat, request, deadline_s=5)

    async def fetch(self, release: InstallableRelease, path: Path) -> None:
        """Goes on where an earlier try ended, even in another process. Raises what `download` raises."""
        await blobs.download(self._blobs, Blob(release.digest, release.bytes), path, attempts=3)

    async def report_install(self, version: int, installed: bool, reason: str) -> None:
        outcome = pb.INSTALL_OUTCOME_INSTALLED if installed else pb.INSTALL_OUTCOME_FAILED
        request = pb.ReportInstallRequest(device=self._device, release_version=version, outcome=outcome, reason=reason)
        await call(self._fleet.ReportInstall, request, deadline_s=10)

    def _forward(self, message: pb.Release, on_release: Callable[[InstallableRelease], None]) -> None:
        try:
            on_release(release_from_message(message))
        except DirediError as error:
            self._log.error("release_makes_no_sense", error=str(error))
            self.last_error = str(error)

    def _note(self, online: bool, why: str) -> None:
        if online != self._said:
            if online:
                self._log.info("cloud_online")
            else:
                self._log.warning("cloud_away", why=why)
            self._said = online
        self.last_error = "" if online else why


def release_from_message(message: pb.Release) -> InstallableRelease:
    """Raises InvalidInput when the message is no release that can be installed."""
    said = convert.release_from(message)
    try:
        return InstallableRelease(
            version=said.version,
            digest=said.onnx.digest,
            bytes=said.onnx.bytes,
            labels=said.labels,
            image_size=said.image_size,
        )
    except ValidationError as error:
        raise InvalidInput(
            f"release {said.version} of the cloud's makes no sense ({error.errors()[0]['msg']})"
        ) from None
