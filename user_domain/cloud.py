"""The site's side of the cloud's services: everything that leaves the site leaves through this file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog

from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace
from diredi.progress import Progress
from diredi.rpc import blobs, convert
from diredi.rpc.client import Channel, call
from diredi.rpc.manifest_signature import sign_manifest
from diredi.rpc.retry import Backoff
from diredi.rpc.streams import watch_stream
from diredi.rpc.v1 import cycles_pb2, sites_pb2
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
from diredi.store.blobs import Blob
from diredi.trust.identity import Credentials

ATTEMPTS = 3
"""Of one call, before the task waits for the cloud to come back."""


class CloudClient:
    """Raises Unreachable while the cloud is away, and whatever it refuses with."""

    def __init__(self, channel: Channel, downloads: Path, credentials: Credentials) -> None:
        self._credentials = credentials
        self._sites = SiteServiceStub(channel)
        self._blobs = BlobServiceStub(channel)
        self._downloads = downloads
        self._said: bool | None = None
        downloads.mkdir(parents=True, exist_ok=True)

    @property
    def online(self) -> bool:
        return bool(self._said)

    def set_online(self, online: bool, why: str = "") -> None:
        """Going away and coming back are each said once."""
        if online != self._said:
            if online:
                structlog.get_logger().info("cloud_online")
            else:
                structlog.get_logger().warning("cloud_away", why=why)
        self._said = online

    async def watch_tasks(
        self,
        site: str,
        *,
        auto_approve: bool,
        publish_style: bool,
        silence_s: float,
        longest_s: float,
        on_break: Callable[[], None],
    ) -> AsyncIterator[sites_pb2.Task]:
        """For ever, whatever happens to the connection; after a break the cloud says again which tasks are open."""

        def note(online: bool, why: str) -> None:
            self.set_online(online, why)
            if not online:
                on_break()

        request = sites_pb2.WatchTasksRequest(site=site, auto_approve=auto_approve, publish_style=publish_style)
        async for answer in watch_stream(
            lambda: self._sites.WatchTasks(request),
            silence_s=silence_s,
            backoff=Backoff(0.2, longest_s),
            on_online=note,
        ):
            if answer.HasField("task"):
                yield answer.task

    async def report_progress(self, cycle_id: str, progress: Progress) -> None:
        message = cycles_pb2.Progress(step=progress.step, fraction=progress.fraction, message=progress.message)
        request = sites_pb2.ReportProgressRequest(cycle_id=cycle_id, progress=message)
        await call(self._sites.ReportProgress, request, deadline_s=10)

    async def propose_classes(self, cycle_id: str, names: tuple[str, ...]) -> LabelSpace:
        request = sites_pb2.ProposeClassesRequest(cycle_id=cycle_id, names=names)
        answer = await call(self._sites.ProposeClasses, request, deadline_s=10, attempts=ATTEMPTS)
        return convert.labels_from(answer.labels)

    async def fetch(self, blob: Blob, suffix: str, on_progress: Callable[[int, int], None] | None = None) -> Path:
        """Cached by digest. Raises CorruptData when the bytes are not the digest's, NotFound, NoRoom."""
        path = self._downloads / (blob.digest.removeprefix("sha256:") + suffix)
        return await blobs.download(self._blobs, blob, path, on_progress=on_progress, attempts=ATTEMPTS)

    def delete_downloads_except(self, keep: set[Path]) -> None:
        """What another cycle needed makes room."""
        for path in self._downloads.iterdir():
            if path not in keep:
                path.unlink()

    async def upload(self, path: Path, on_progress: Callable[[int, int], None]) -> Blob:
        """Sends what the cloud does not have of it yet."""
        return await blobs.upload(self._blobs, path, on_progress=on_progress, attempts=ATTEMPTS)

    async def submit_gap(self, manifest: cycles_pb2.GapManifest) -> None:
        """Signed by this site's key, with which the manifest can be held against it later."""
        sign_manifest(manifest, self._credentials)
        request = sites_pb2.SubmitGapRequest(manifest=manifest)
        await call(self._sites.SubmitGap, request, deadline_s=60, attempts=ATTEMPTS)

    async def submit_validation(self, cycle_id: str, after: DetectionMetrics) -> None:
        request = sites_pb2.SubmitValidationRequest(cycle_id=cycle_id, after=convert.metrics_to(after))
        await call(self._sites.SubmitValidation, request, deadline_s=10, attempts=ATTEMPTS)

    async def report_failure(self, task_id: str, reason: str) -> None:
        request = sites_pb2.FailTaskRequest(task_id=task_id, reason=reason)
        await call(self._sites.FailTask, request, deadline_s=10, attempts=ATTEMPTS)
