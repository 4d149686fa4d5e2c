"""The other sides of an edge node: a cloud that keeps to the contract, or breaks it when told to, and a client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diredi.detectors.spec import DetectorSpec
from diredi.errors import DirediError
from diredi.rpc import convert
from diredi.rpc.blobs import BlobServicer
from diredi.rpc.caller import caller_identity
from diredi.rpc.client import call, connect
from diredi.rpc.release_metadata import chunks_of
from diredi.rpc.v1 import edge_pb2, fleet_pb2, fleet_pb2_grpc, registry_pb2
from diredi.rpc.v1.edge_pb2_grpc import EdgeServiceStub
from diredi.store.blobs import BlobStore
from diredi.trust.identity import Credentials, Identity, Role
from diredi.trust.merkle import Frontier
from diredi.trust.release_repository import LogProof, ReleaseClaims, ReleaseRepository, ReleaseTarget, labels_digest
from edge_node.config import EdgeConfig
from edge_node.node import serve
from tests.support.net import free_port
from tests.support.pki import Pki
from tests.support.stub_cloud import StubCloud
from tests.support.waiting import PATIENCE_S, pause_s


class FakeBlobService(BlobServicer):
    """Serves blobs; while `stall_after` is set a download stops after so many chunks and stays silent."""

    stall_after: int | None = None
    served_bytes = 0
    corrupt = False
    failures = 0
    """So many downloads end with a defect of the server's."""

    async def GetBlob(self, request: registry_pb2.GetBlobRequest, context: Any) -> AsyncIterator[Any]:
        chunks = 0
        if self.failures:
            self.failures -= 1
            raise RuntimeError("a defect")
        async for chunk in super().GetBlob(request, context):
            if self.stall_after is not None and chunks >= self.stall_after:
                await asyncio.Event().wait()
            if self.corrupt:
                chunk.data = bytes(len(chunk.data))
            self.served_bytes += len(chunk.data)
            chunks += 1
            yield chunk


class FakeFleetService(fleet_pb2_grpc.FleetServiceServicer):
    """FleetService as the contract tells it, with memory only."""

    def __init__(self, blobs: BlobStore, repository: ReleaseRepository) -> None:
        self.blobs = blobs
        self.repository = repository
        self.served: list[str] = []
        """The names of the metadata that were asked for."""
        self.release: convert.Release | None = None
        self.changed = asyncio.Condition()
        self.registered: list[tuple[str, int]] = []
        self.heartbeats: list[fleet_pb2.HeartbeatRequest] = []
        self.reports: list[tuple[int, str, str]] = []
        self.report_errors: list[Exception] = []
        """What reports are answered with, one after the other, before they are taken."""
        self.log = Frontier()

    async def RegisterDevice(self, request: fleet_pb2.RegisterDeviceRequest, context: Any) -> Any:
        self.registered.append((str(caller_identity(context)), request.release_version))
        return fleet_pb2.RegisterDeviceResponse()

    async def Heartbeat(self, request: fleet_pb2.HeartbeatRequest, context: Any) -> Any:
        self.heartbeats.append(request)
        return fleet_pb2.HeartbeatResponse()

    async def WatchReleases(self, request: fleet_pb2.WatchReleasesRequest, context: Any) -> AsyncIterator[Any]:
        while True:
            release = self.release
            yield fleet_pb2.WatchReleasesResponse(release=convert.release_to(release) if release else None)
            async with self.changed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait_for(lambda seen=release: self.release is not seen), 0.3)

    async def GetReleaseMetadata(
        self, request: fleet_pb2.GetReleaseMetadataRequest, context: Any
    ) -> AsyncIterator[Any]:
        self.served.append(request.name)
        for chunk in chunks_of(self.repository.read(request.name)):
            yield chunk

    async def ReportInstall(self, request: fleet_pb2.ReportInstallRequest, context: Any) -> Any:
        if self.report_errors:
            raise self.report_errors.pop()
        outcome = fleet_pb2.InstallOutcome.Name(request.outcome).removeprefix("INSTALL_OUTCOME_")
        self.reports.append((request.release_version, outcome, request.reason))
        return fleet_pb2.ReportInstallResponse()

    async def publish(self, version: int, onnx: Path, spec: DetectorSpec) -> convert.Release:
        """Sign a release of the fleet, and name it."""
        release = self.sign(version, onnx, spec)
        await self.name(release)
        return release

    def sign(
        self, version: int, onnx: Path, spec: DetectorSpec, scope: str = "fleet", logged_as: int | None = None
    ) -> convert.Release:
        """Sign a release; `logged_as` is the version that its entry in the log has, 0 for no entry."""
        blob = self.blobs.add_file(onnx)
        claims = ReleaseClaims(
            version=version, scope=scope, architecture=spec.architecture, labels=labels_digest(spec.labels),
            image_size=spec.image_size, student=f"student-{version}",
            log=None if logged_as == 0 else self.add_to_log(logged_as or version, scope, blob.digest),
        )  # fmt: skip
        paths = self.repository.publish([ReleaseTarget(file=blob, claims=claims)], datetime.now(UTC))
        return convert.Release(
            version, claims.student, blob, spec.labels, spec.image_size, scope=scope, target=paths[version]
        )

    def add_to_log(self, version: int, scope: str, file: str) -> LogProof:
        entry, before = json.dumps({"version": version, "scope": scope, "file": file}), self.log
        self.log = before.add(entry.encode())
        peaks = tuple(peak.hex() for peak in before.peaks)
        return LogProof(index=before.size, entry=entry, peaks=peaks, root=self.log.root.hex())

    async def name(self, release: convert.Release) -> None:
        """The release that devices should run from now on."""
        async with self.changed:
            self.release = release
            self.changed.notify_all()


def downloaded(folder: Path) -> int:
    """The bytes on disk of a download that is not complete."""
    return sum(part.stat().st_size for part in folder.rglob(".*.part"))


CAMERA = Identity(Role.DEVICE, "camera-1", "site-1")


class EdgeCloud(StubCloud):
    def __init__(self, folder: Path, pki: Pki, credentials: Credentials | None = None) -> None:
        store = BlobStore(folder / "blobs")
        self.fleet = FakeFleetService(store, ReleaseRepository(folder / "releases", pki.issue("cloud", "cloud")))
        self.blobs = FakeBlobService(store)
        super().__init__(credentials or pki.credentials("cloud", "cloud"), [self.fleet, self.blobs])


class Node:
    """A running edge node, seen through its own gRPC."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self.channel = connect(address, credentials, server=CAMERA)
        self.stub = EdgeServiceStub(self.channel)

    async def status(self) -> edge_pb2.GetStatusResponse:
        return await call(self.stub.GetStatus, edge_pb2.GetStatusRequest(), deadline_s=PATIENCE_S)

    async def detect(self, image: bytes, confidence: float = 0.0) -> edge_pb2.DetectImageResponse:
        request = edge_pb2.DetectImageRequest(image=image, confidence=confidence)
        return await call(self.stub.DetectImage, request, deadline_s=PATIENCE_S)

    async def until(
        self, condition: Callable[[edge_pb2.GetStatusResponse], bool], timeout_s: float = PATIENCE_S
    ) -> edge_pb2.GetStatusResponse:
        """The first status for which `condition` holds."""
        began = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    status = await self.status()
                    if condition(status):
                        return status
                except DirediError:
                    pass
                await asyncio.sleep(pause_s(began))


def config_of(folder: Path, pki: Pki, cloud: str, source: str | None, **more: Any) -> EdgeConfig:
    values: dict[str, Any] = {
        "device": "camera-1",
        "site": "site-1",
        "cloud": cloud,
        "identity": pki.issue("device", "camera-1", "site-1"),
        "state_dir": folder,
        "listen": f"127.0.0.1:{free_port()}",
        "source": source,
        "frames_per_second": 30,
        "heartbeat_s": 0.2,
        "retry_failed_s": 0.2,
        "runtime": "onnxruntime",  # test_runtime_of_a_node.py has others
        "trial_s": 0,  # a process of its own for each release costs half a second; test_trial.py has them
    }
    return EdgeConfig(**{**values, **more})


@asynccontextmanager
async def running(config: EdgeConfig, pki: Pki) -> AsyncIterator[Node]:
    """A node in this process, from its start to its stop."""
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(config, stop))
    node = Node(config.listen, pki.credentials("device", "camera-1", "site-1"))
    try:
        ready = asyncio.create_task(node.until(lambda _: True))
        await asyncio.wait({ready, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            ready.cancel()
            await serving
        yield node
    finally:
        await node.channel.close()
        stop.set()
        await serving
