"""The client of FleetService: registers the device, sends heartbeats, watches releases and reports installations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog
from pydantic import ValidationError

from diredi.errors import DirediError, InvalidInput
from diredi.rpc import blobs, convert
from diredi.rpc.client import Channel, call
from diredi.rpc.message_signature import sign_message
from diredi.rpc.release_metadata import fetch_from_thread
from diredi.rpc.retry import Backoff
from diredi.rpc.streams import watch_stream
from diredi.rpc.v1 import fleet_pb2 as pb
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceStub
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
from diredi.store.blobs import Blob
from diredi.trust.identity import Credentials
from edge_node.camera import Camera
from edge_node.site_rules import UpdateWait
from edge_node.telemetry import Telemetry
from edge_node.update_states import InstallableRelease

_WAITS = {
    UpdateWait.NONE: pb.UPDATE_WAIT_UNSPECIFIED,
    UpdateWait.HELD: pb.UPDATE_WAIT_HELD,
    UpdateWait.WINDOW: pb.UPDATE_WAIT_WINDOW,
}


@dataclass(frozen=True)
class DetectionHealth:
    """Hold how the release that runs has detected since this process was started, beside the release before."""

    frames: int = 0
    """Those that it was to detect."""
    failed_frames: int = 0
    """Those on which it has failed, whether another release has detected them or none."""
    dropped_frames: int = 0
    """Those on which none has detected."""
    boxes: int = 0
    confidence: float = 0.0
    """Mean of so many of its newest boxes, 0 to 1."""
    boxes_before: int = 0
    confidence_before: float = 0.0
    """Mean of so many of the newest boxes of the release before, 0 to 1."""
    compared_boxes: int = 0
    """Boxes that were compared with those of the release before, on the same frames."""
    differing_boxes: int = 0


@dataclass(frozen=True)
class UpdateHealth:
    """Hold what the cloud is told of updates beside the version that runs."""

    failed_frames: int = 0
    updates_stalled: bool = False
    runtime: str = ""
    """What runs the network; empty where no release runs."""
    drifts: Mapping[str, str] = field(default_factory=dict)
    """What has changed and stays so, by the name of the camera where anything has."""
    waits: UpdateWait = UpdateWait.NONE
    """Why the site lets the named release wait."""
    detection: DetectionHealth = field(default_factory=DetectionHealth)


class CloudClient:
    """Talk to the cloud on behalf of this device. Losing the cloud and reaching it again are each logged once."""

    def __init__(self, device: str, site: str, *, heartbeat_s: float, silence_s: float) -> None:
        """Make a client, which needs a channel (`use`) before anything else of it is called.

        Args:
            device: Name of this device.
            site: The site that it stands at.
            heartbeat_s: Seconds between two heartbeats.
            silence_s: A release stream that is silent for so many seconds is opened again.
        """
        self._device = device
        self._site = site
        self._heartbeat_s = heartbeat_s
        self._silence_s = silence_s
        self._log = structlog.get_logger()
        self._registered = False
        self._online: bool | None = None
        self.last_error = ""

    def use(self, channel: Channel, credentials: Credentials) -> None:
        """Talk through this connection to the cloud from now on, with this certificate and its key."""
        self._credentials = credentials
        self._expires = convert.time_to(credentials.expires)
        self._fleet = FleetServiceStub(channel)
        self._blobs = BlobServiceStub(channel)
        self._fetch_metadata = fetch_from_thread(self._fleet, asyncio.get_running_loop())
        self._registered = False

    @property
    def online(self) -> bool:
        """Whether the last call to the cloud was answered."""
        return bool(self._online)

    async def watch_releases(
        self, on_release: Callable[[InstallableRelease], None], on_deny_list: Callable[[int], None]
    ) -> None:
        """Call `on_release` with every release that the cloud names, for ever; an invalid one is logged and skipped.

        Args:
            on_release: Called with each release.
            on_deny_list: Called with the number of the newest deny list.
        """
        request = pb.WatchReleasesRequest(device=self._device)
        while True:
            try:
                async for answer in watch_stream(
                    lambda: self._fleet.WatchReleases(request),
                    silence_s=self._silence_s,
                    backoff=Backoff(0.2, 5.0),
                    on_online=self._set_online,
                ):
                    on_deny_list(answer.deny_list)
                    if answer.HasField("release"):
                        self._forward(answer.release, on_release)
            except DirediError as error:  # refused or unknown: an operator may correct that while we run
                self._set_online(False, str(error))
            await asyncio.sleep(self._heartbeat_s)

    async def heartbeat(
        self,
        telemetry: Telemetry,
        version: Callable[[], int],
        cameras: Sequence[Camera],
        health: Callable[[], UpdateHealth],
    ) -> None:
        """Send heartbeats for ever. After a failed call the device registers again before the next one.

        Args:
            telemetry: What is sent.
            version: Returns the version of the release that runs; 0 for none.
            cameras: Where frames come from; how they are is sent, too.
            health: Returns how the model does, and whether updates come.
        """
        while True:
            try:
                if not self._registered:
                    await self._register(version())
                await self._send_heartbeat(telemetry, version(), cameras, health())
                self._set_online(True, "")
            except DirediError as error:
                self._registered = False
                self._set_online(False, str(error))
            await asyncio.sleep(self._heartbeat_s if self._registered else min(2.0, self._heartbeat_s))

    async def _register(self, version: int) -> None:
        request = pb.RegisterDeviceRequest(device=self._device, site=self._site, release_version=version)
        await call(self._fleet.RegisterDevice, request, deadline_s=10)
        self._registered = True

    async def _send_heartbeat(
        self, telemetry: Telemetry, version: int, cameras: Sequence[Camera], health: UpdateHealth
    ) -> None:
        rates = telemetry.rates()
        request = pb.HeartbeatRequest(
            device=self._device,
            release_version=version,
            frames=rates.frames,
            frames_per_second=rates.frames_per_second,
            latency_ms=rates.latency_ms,
            sources=[
                pb.Source(
                    name=camera.name,
                    state=pb.SourceState.Value(f"SOURCE_STATE_{camera.state.name}"),
                    drift=health.drifts.get(camera.name, ""),
                )
                for camera in cameras
            ],
            certificate_expires=self._expires,
            failed_frames=health.failed_frames,
            updates_stalled=health.updates_stalled,
            runtime=health.runtime,
            update_wait=_WAITS[health.waits],
            detection=pb.DetectionHealth(**asdict(health.detection)),
        )
        await call(self._fleet.Heartbeat, request, deadline_s=5)

    async def fetch(self, release: InstallableRelease, path: Path) -> None:
        """Download a release to a path, going on where an earlier try ended, even one of another process.

        Raises what `blobs.download` raises.
        """
        await blobs.download(self._blobs, Blob(release.digest, release.bytes), path, attempts=3)

    def fetch_metadata(self, name: str) -> bytes:
        """Return a file of the signed metadata of releases. It is called from a thread, while the event loop runs."""
        return self._fetch_metadata(name)

    async def report_install(self, version: int, digest: str, installed: bool, reason: str, possession: bytes) -> None:
        """Report the outcome of an installation: the reason if it failed, else the proof that the file is here."""
        outcome = pb.INSTALL_OUTCOME_INSTALLED if installed else pb.INSTALL_OUTCOME_FAILED
        request = pb.ReportInstallRequest(
            device=self._device, release_version=version, digest=digest, outcome=outcome, reason=reason,
            possession=possession,
        )  # fmt: skip
        sign_message(request, self._credentials)
        await call(self._fleet.ReportInstall, request, deadline_s=10)

    def _forward(self, message: pb.Release, on_release: Callable[[InstallableRelease], None]) -> None:
        try:
            on_release(release_from_message(message))
        except DirediError as error:
            self._log.error("release_rejected", error=str(error))
            self.last_error = str(error)

    def _set_online(self, online: bool, why: str) -> None:
        if online != self._online:
            if online:
                self._log.info("cloud_connected")
            else:
                self._log.warning("cloud_disconnected", why=why)
            self._online = online
        self.last_error = "" if online else why


def release_from_message(message: pb.Release) -> InstallableRelease:
    """Turn a message into a release. Raises InvalidInput when it is none that can be installed."""
    release = convert.release_from(message)
    try:
        return InstallableRelease(
            version=release.version,
            digest=release.onnx.digest,
            bytes=release.onnx.bytes,
            labels=release.labels,
            image_size=release.image_size,
            scope=release.scope or "fleet",
            target=release.target,
            challenge=release.challenge.hex(),
        )
    except ValidationError as error:
        raise InvalidInput(
            f"the cloud named release {release.version}, which cannot be installed: {error.errors()[0]['msg']}"
        ) from None
