"""The client of the cloud's services. Everything that leaves the site leaves through this file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

import structlog

from diredi.errors import NotFound
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace
from diredi.progress import Progress
from diredi.rpc import blobs, convert
from diredi.rpc.client import Channel, call
from diredi.rpc.message_signature import sign_message
from diredi.rpc.retry import Backoff
from diredi.rpc.streams import watch_stream
from diredi.rpc.v1 import common_pb2, cycles_pb2, registry_pb2, sites_pb2
from diredi.rpc.v1.cycles_pb2_grpc import CycleServiceStub
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub, RegistryServiceStub
from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
from diredi.store.blobs import Blob
from diredi.store.files import make_folder
from diredi.trust.identity import Credentials

ATTEMPTS = 3
"""How often one call is tried before the task waits for the cloud."""


class CloudClient:
    """Talk to the cloud on behalf of this site. Each call raises Unreachable, or what the cloud refuses with."""

    def __init__(self, channel: Channel, downloads: Path, credentials: Credentials) -> None:
        """Make a client.

        Args:
            channel: The connection to the cloud.
            downloads: Folder of the downloaded blobs.
            credentials: The site's, with whose key it signs.
        """
        self.credentials = credentials
        self._sites = SiteServiceStub(channel)
        self._cycles = CycleServiceStub(channel)
        self._blobs = BlobServiceStub(channel)
        self._registry = RegistryServiceStub(channel)
        self._downloads = downloads
        self._online: bool | None = None
        make_folder(downloads)

    @property
    def online(self) -> bool:
        """Whether the last call to the cloud was answered."""
        return bool(self._online)

    def set_online(self, online: bool, why: str = "") -> None:
        """Record whether the cloud can be reached. Losing it and reaching it again are each logged once."""
        if online != self._online:
            if online:
                structlog.get_logger().info("cloud_connected")
            else:
                structlog.get_logger().warning("cloud_disconnected", why=why)
        self._online = online

    async def watch_tasks(
        self,
        site: str,
        *,
        auto_approve: bool,
        publish_style: bool,
        validates_external: bool = False,
        silence_s: float,
        longest_s: float,
        on_break: Callable[[], None],
        on_deny_list: Callable[[int], None],
    ) -> AsyncIterator[sites_pb2.Task]:
        """Yield tasks for ever, whatever happens to the connection.

        After a break the cloud names the open tasks again.

        Args:
            site: Name of this site.
            auto_approve: Whether this site approves of everything, so that its operators need not be asked.
            publish_style: Whether the site publishes its style, so that whoever approves knows.
            validates_external: Whether this site may be asked about candidates of cycles that it takes no part in.
            silence_s: A stream that is silent for so many seconds is opened again.
            longest_s: The longest pause between two tries, in seconds.
            on_break: Called whenever the connection breaks.
            on_deny_list: Called with the number of the cloud's newest deny list.
        """

        def on_online(online: bool, why: str) -> None:
            self.set_online(online, why)
            if not online:
                on_break()

        request = sites_pb2.WatchTasksRequest(
            site=site, auto_approve=auto_approve, publish_style=publish_style, validates_external=validates_external
        )
        async for answer in watch_stream(
            lambda: self._sites.WatchTasks(request),
            silence_s=silence_s,
            backoff=Backoff(0.2, longest_s),
            on_online=on_online,
        ):
            on_deny_list(answer.deny_list)
            if answer.HasField("task"):
                yield answer.task

    async def report_approval(self, cycle_id: str) -> None:
        """Tell the cloud that this site has approved a cycle, for its operators to see."""
        request = cycles_pb2.ApproveCycleRequest(id=cycle_id)
        await call(self._cycles.ApproveCycle, request, deadline_s=10, attempts=ATTEMPTS)

    async def decline(self, cycle_id: str, reason: str) -> None:
        """Tell the cloud that this site takes no part in a cycle."""
        request = cycles_pb2.DeclineCycleRequest(id=cycle_id, reason=reason)
        await call(self._cycles.DeclineCycle, request, deadline_s=10, attempts=ATTEMPTS)

    async def report_progress(self, cycle_id: str, progress: Progress) -> None:
        """Report how far an extraction is."""
        message = cycles_pb2.Progress(step=progress.step, fraction=progress.fraction, message=progress.message)
        request = sites_pb2.ReportProgressRequest(cycle_id=cycle_id, progress=message)
        await call(self._sites.ReportProgress, request, deadline_s=10)

    async def propose_classes(self, cycle_id: str, names: Sequence[str], distinct: Collection[str]) -> LabelSpace:
        """Return the label space that holds these class names; new ones get their ids.

        Args:
            cycle_id: The cycle.
            names: All classes of the site.
            distinct: Those that are classes of their own, whatever known name they are like.

        Raises:
            InvalidInput: A new name may mean a class that the cloud knows; the message proposes that name.
        """
        distinct = [name for name in names if name in distinct]
        request = sites_pb2.ProposeClassesRequest(cycle_id=cycle_id, names=names, distinct=distinct)
        answer = await call(self._sites.ProposeClasses, request, deadline_s=10, attempts=ATTEMPTS)
        return convert.labels_from(answer.labels)

    async def fetch(self, blob: Blob, suffix: str, on_bytes: Callable[[int, int], None] | None = None) -> Path:
        """Return the path of a blob, which is downloaded unless it is here already.

        Args:
            blob: Which blob.
            suffix: Of the file's name.
            on_bytes: Called with the bytes that are here and those that there are.

        Raises:
            CorruptData: The bytes do not match the digest.
            NotFound: The cloud has no such blob.
            NoRoom: The disk is full.
        """
        path = self._downloads / (blob.digest.removeprefix("sha256:") + suffix)
        return await blobs.download(self._blobs, blob, path, on_bytes=on_bytes, attempts=ATTEMPTS)

    def downloaded(self, digest: str, suffix: str) -> Path | None:
        """Return the path of a blob that was fetched with this suffix and is here still; None where it is not."""
        path = self._downloads / (digest.removeprefix("sha256:") + suffix)
        return path if digest and path.is_file() else None

    async def fetch_release(self, onnx_digest: str, folder: Path) -> tuple[Path, Path]:
        """Download the weights and the ONNX file of a release into a folder, and return their paths.

        Raises:
            NotFound: The cloud has no such release for this site.
            CorruptData: The bytes do not match the digest.
            NoRoom: The disk is full.
        """
        found = await self._find_student(onnx_digest)
        weights, onnx = folder / "student.safetensors", folder / "release.onnx"
        for blob, path in ((found.weights, weights), (found.onnx, onnx)):
            await blobs.download(self._blobs, convert.blob_from(blob), path, attempts=ATTEMPTS)
        return weights, onnx

    async def _find_student(self, onnx_digest: str) -> common_pb2.Model:
        request = registry_pb2.ListModelsRequest(kind=common_pb2.MODEL_KIND_STUDENT)
        while True:
            answer = await call(self._registry.ListModels, request, deadline_s=10, attempts=ATTEMPTS)
            for model in answer.models:
                if model.onnx.digest == onnx_digest:
                    return model
            if not answer.next_page_token:
                raise NotFound(f"the cloud shows this site no release {onnx_digest[:19]}, a candidate maybe: wait")
            request.page_token = answer.next_page_token

    def delete_downloads_except(self, keep: set[Path]) -> None:
        """Delete all downloads but these, which are what another cycle needed."""
        for path in self._downloads.iterdir():
            if path not in keep:
                path.unlink()

    async def upload(self, path: Path, on_bytes: Callable[[int, int], None]) -> Blob:
        """Upload a file, less what the cloud has of it already."""
        return await blobs.upload(self._blobs, path, on_bytes=on_bytes, attempts=ATTEMPTS)

    async def submit_gap(self, manifest: cycles_pb2.GapManifest) -> None:
        """Sign a manifest with this site's key and submit it."""
        sign_message(manifest, self.credentials)
        request = sites_pb2.SubmitGapRequest(manifest=manifest)
        await call(self._sites.SubmitGap, request, deadline_s=60, attempts=ATTEMPTS)

    async def submit_validation(
        self, cycle_id: str, after: DetectionMetrics, before: DetectionMetrics | None = None
    ) -> None:
        """Submit the metrics of a candidate on this site's held-out images.

        Args:
            cycle_id: The cycle.
            after: Of the candidate.
            before: Of the release that it would replace, where this site takes no part in the cycle.
        """
        request = sites_pb2.SubmitValidationRequest(cycle_id=cycle_id, after=convert.metrics_to(after))
        if before is not None:
            request.before.CopyFrom(convert.metrics_to(before))
        await call(self._sites.SubmitValidation, request, deadline_s=10, attempts=ATTEMPTS)

    async def report_failure(self, task_id: str, reason: str) -> None:
        """Report that a task failed."""
        request = sites_pb2.FailTaskRequest(task_id=task_id, reason=reason)
        await call(self._sites.FailTask, request, deadline_s=10, attempts=ATTEMPTS)
