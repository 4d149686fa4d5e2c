"""A cloud over real TLS in this process, and the other side of the protocol, driven by real RPCs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cloud_server.app import Cloud
from cloud_server.config import CloudConfig
from diredi.detectors.spec import DetectorSpec
from diredi.knowledge.gap import Gap, GapNote
from diredi.labels import LabelSpace
from diredi.rpc import blobs, convert
from diredi.rpc.client import Channel, call, connect, is_serving
from diredi.rpc.message_signature import sign_message
from diredi.rpc.retry import Backoff
from diredi.rpc.streams import read_messages, watch_stream
from diredi.rpc.v1 import (
    common_pb2,
    cycles_pb2,
    cycles_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    sites_pb2,
    sites_pb2_grpc,
)
from diredi.store.blobs import Blob
from diredi.store.weights import WeightMap
from diredi.trust import ca
from diredi.trust.identity import Credentials, Role
from diredi.trust.release_repository import possession_of
from tests.services.cloud.quick_jobs import toy
from tests.support.waiting import PATIENCE_S

QUICK = "tests.services.cloud.quick_jobs"
CODEC = "fp32-zstd"
STYLE: dict[str, Any] = {
    "lightness": [10, 40, 70, 100.5, 140, 190, 240], "lightness_spread": 4, "colour": [120.25, 131],
    "colour_spread": [9, 11], "sharpness": 0.5, "noise": 0.02,
}  # fmt: skip


def make_identities(folder: Path) -> Path:
    """One folder an identity, named "site-1" and so on."""
    ca.init(folder / "ca")
    ca.issue(folder / "ca", Role.CLOUD, "cloud", ["127.0.0.1", "localhost"], folder / "cloud")
    for site in ("site-1", "site-2", "site-3"):
        ca.issue(folder / "ca", Role.SITE, site, [], folder / site)
    ca.issue(folder / "ca", Role.SITE, "site-1", [], folder / "site-1-renewed")
    for device in ("cam-1", "cam-2", "cam-3"):
        ca.issue(folder / "ca", Role.DEVICE, device, [], folder / device, site="site-1")
    ca.issue(folder / "ca", Role.DEVICE, "cam-1", [], folder / "twin", site="site-2")
    ca.issue(folder / "ca", Role.DEVICE, "yard", [], folder / "yard", site="site-3")
    ca.issue(folder / "ca", Role.OPERATOR, "alice", [], folder / "alice")
    ca.issue(folder / "ca", Role.VIEWER, "vera", [], folder / "vera")
    ca.issue(folder / "ca", Role.ADMIN, "anna", [], folder / "anna")
    return folder


def make_presumed(folder: Path) -> Path:
    """A data set with names and no pictures: the quick jobs look at nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.yaml"
    path.write_text("train: images\nval: images\nnames: [car, person]\n")
    return path


@dataclass
class World:
    folder: Path
    identities: Path
    settings: dict[str, Any] = field(default_factory=dict)
    jobs: str = QUICK
    address: str = ""
    patience_s: float = PATIENCE_S
    channels: dict[str, Channel] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    def config(self) -> CloudConfig:
        values: dict[str, Any] = {
            "listen": self.address or "127.0.0.1:0",
            "state_dir": self.state_dir,
            "identity": self.identities / "cloud",
            "presumed": str(make_presumed(self.folder / "presumed")),
        }
        return CloudConfig(**values | self.settings)

    async def start(self, **more: Any) -> Cloud:
        cloud = await Cloud(self.config(), jobs=self.jobs, **more).start()
        self.address = cloud.address
        return cloud

    @asynccontextmanager
    async def cloud(self, **more: Any) -> AsyncIterator[Cloud]:
        """A cloud with its first release."""
        cloud = await self.start(**more)
        try:
            await self.until_ready()
            yield cloud
        finally:
            await cloud.stop(0)

    async def until_ready(self) -> None:
        async with asyncio.timeout(self.patience_s), connect(self.address, self.credentials("alice")) as channel:
            while True:
                with suppress(ConnectionError):
                    if await _serving(channel):
                        return
                await asyncio.sleep(0.05)

    def credentials(self, name: str) -> Credentials:
        return Credentials.load(self.identities / name)

    def channel(self, name: str) -> Channel:
        if name not in self.channels:
            self.channels[name] = connect(self.address, self.credentials(name))
        return self.channels[name]

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()
        self.channels.clear()

    def operator(self) -> Operator:
        return Operator(self)

    def site(self, name: str = "site-1", auto_approve: bool = True, publish_style: bool = False) -> SiteSide:
        return SiteSide(self, name, auto_approve, publish_style)

    def device(self, name: str = "cam-1", site: str = "site-1", identity: str = "") -> DeviceSide:
        return DeviceSide(self, name, site, identity or name)


async def _serving(channel: Channel) -> bool:
    from diredi.errors import Unreachable

    try:
        return await is_serving(channel, "diredi.v1.CycleService", 5)
    except Unreachable:
        return False


async def ask(method: Any, request: Any, attempts: int = 1) -> Any:
    return await call(method, request, deadline_s=PATIENCE_S, attempts=attempts, backoff=Backoff(0.05, 0.5))


class Operator:
    def __init__(self, world: World, name: str = "alice") -> None:
        channel, self.patience_s, self.folder = world.channel(name), world.patience_s, world.folder
        self.cycles = cycles_pb2_grpc.CycleServiceStub(channel)
        self.sites = sites_pb2_grpc.SiteServiceStub(channel)
        self.fleet = fleet_pb2_grpc.FleetServiceStub(channel)
        self.registry = registry_pb2_grpc.RegistryServiceStub(channel)
        self.blobs = registry_pb2_grpc.BlobServiceStub(channel)

    async def known_sites(self) -> list[Any]:
        return list((await ask(self.sites.ListSites, sites_pb2.ListSitesRequest())).sites)

    async def fetch(self, ref: common_pb2.BlobRef) -> Path:
        """Who may read everything looks at what others may not."""
        path = self.folder / ref.digest.removeprefix("sha256:")
        return await blobs.download(self.blobs, convert.blob_from(ref), path, backoff=Backoff(0.05, 0.5))

    async def until_known(self, *names: str) -> None:
        """Until the sites have called."""
        async with asyncio.timeout(self.patience_s):
            while not {site.name for site in await self.known_sites()} >= set(names):
                await asyncio.sleep(0.02)

    async def devices(self) -> dict[str, Any]:
        answer = await ask(self.fleet.ListDevices, fleet_pb2.ListDevicesRequest())
        return {device.name: device for device in answer.devices}

    async def known_device(self, site: str) -> Any:
        """The one device of a site."""
        (device,) = (await ask(self.fleet.ListDevices, fleet_pb2.ListDevicesRequest(site=site))).devices
        return device

    async def start(self, *sites: str, request_id: str = "r1", scope: str = "", **recipe: Any) -> Any:
        """At site-1 when no site is named."""
        first, *others = sites or ("site-1",)
        request = cycles_pb2.StartCycleRequest(
            site=first, sites=others, request_id=request_id, recipe=convert.struct_to(recipe), scope=scope
        )
        return (await ask(self.cycles.StartCycle, request)).cycle

    async def model(self, model_id: str) -> Any:
        return (await ask(self.registry.GetModel, registry_pb2.GetModelRequest(id=model_id), attempts=400)).model

    async def get(self, cycle_id: str) -> Any:
        return (await ask(self.cycles.GetCycle, cycles_pb2.GetCycleRequest(id=cycle_id), attempts=400)).cycle

    async def until(self, cycle_id: str, *states: str) -> Any:
        """The cycle as soon as it is in one of `states`, or has ended; through restarts of the cloud."""
        request = cycles_pb2.WatchCycleRequest(id=cycle_id)
        async with asyncio.timeout(self.patience_s):
            cycle = None
            stream = watch_stream(lambda: self.cycles.WatchCycle(request), ends=True, backoff=Backoff(0.05, 0.3))
            async for message in stream:
                cycle = message.cycle
                if state_of(cycle) in states:
                    break
            return cycle


def state_of(cycle: Any) -> str:
    return cycles_pb2.CycleState.Name(cycle.state).removeprefix("CYCLE_STATE_")


def states_of(cycle: Any) -> list[str]:
    return [cycles_pb2.CycleState.Name(t.state).removeprefix("CYCLE_STATE_") for t in cycle.history]


class SiteSide:
    """A user domain without pictures: what it uploads are real gaps of toy weights."""

    def __init__(self, world: World, name: str, auto_approve: bool, publish_style: bool = False) -> None:
        self.world, self.name, self.auto_approve, self.publish_style = world, name, auto_approve, publish_style
        channel, self.patience_s = world.channel(name), world.patience_s
        self.stub = sites_pb2_grpc.SiteServiceStub(channel)
        self.blobs = registry_pb2_grpc.BlobServiceStub(channel)
        self.cycles = cycles_pb2_grpc.CycleServiceStub(channel)
        self.folder = world.folder / name
        self.folder.mkdir(exist_ok=True)
        self.learned = "car"
        self.validates_external = False

    def tasks(self) -> AsyncIterator[Any]:
        return watch_stream(self._stream, backoff=Backoff(0.05, 0.3))

    def _stream(self) -> Any:
        policy = {"auto_approve": self.auto_approve, "publish_style": self.publish_style}
        policy["validates_external"] = self.validates_external
        return self.stub.WatchTasks(sites_pb2.WatchTasksRequest(site=self.name, **policy))

    async def next_task(self, kind: int | None = None) -> Any:
        """The next task on a new stream; of `kind` where it is given."""
        async with asyncio.timeout(self.patience_s):
            async for message in read_messages(self._stream(), 60):
                if message.HasField("task") and kind in (None, message.task.kind):
                    return message.task
        raise AssertionError

    async def begin(self, cycle_id: str) -> None:
        progress = cycles_pb2.Progress(step="tutor-2", fraction=0.0, message="begin")
        request = sites_pb2.ReportProgressRequest(cycle_id=cycle_id, progress=progress)
        await ask(self.stub.ReportProgress, request, attempts=400)

    async def propose(self, cycle_id: str, *names: str) -> LabelSpace:
        request = sites_pb2.ProposeClassesRequest(cycle_id=cycle_id, names=names)
        answer = await ask(self.stub.ProposeClasses, request, attempts=400)
        self.learned = names[-1]
        return convert.labels_from(answer.labels)

    async def put(self, data: bytes) -> Blob:
        path = self.folder / "upload"
        path.write_bytes(data)
        return await blobs.upload(self.blobs, path, attempts=400, backoff=Backoff(0.05, 0.5))

    async def fetch(self, ref: common_pb2.BlobRef) -> Path:
        blob = convert.blob_from(ref)
        path = self.folder / blob.digest.removeprefix("sha256:")
        return await blobs.download(self.blobs, blob, path, attempts=400, backoff=Backoff(0.05, 0.5))

    async def gap_of(self, model: Any, labels: LabelSpace, change: float = 0.0, taught: Sequence[str] = ()) -> Any:
        """An uploaded gap that changes the body of `model` by `change` and adds rows for the new classes."""
        base_path = await self.fetch(model.weights)
        encoded, weights = make_gap(base_path, model.id, labels, change, taught)
        blob = await self.put(encoded)
        return cycles_pb2.EncodedGap(
            blob=convert.blob_to(blob), codec=CODEC, fp32_bytes=WeightMap.load(base_path).fp32_bytes,
            base_id=model.id, schema_digest=weights.schema_digest(),
        )  # fmt: skip

    async def manifest(
        self, task: Any, labels: LabelSpace, change: float = 0.05, student: bool = True, taught: Sequence[str] = ()
    ) -> Any:
        """`change`: how much better (or worse) both models get; `taught`: the new classes of this site, or all."""
        return cycles_pb2.GapManifest(
            cycle_id=task.cycle_id, tutor_gap=await self.gap_of(task.tutor, labels, change, taught),
            student_gap=await self.gap_of(task.student, labels, change, taught) if student else None,
            labels=convert.labels_to(labels), train_images=40, held_out_images=8, boxes={labels.names[-1]: 12},
            student_before=metrics(0.4, self.learned), tutor_after=metrics(0.8, self.learned),
        )  # fmt: skip

    def signed(self, manifest: Any, identity: str = "") -> Any:
        """The request of a manifest that is signed by this site, or by another identity."""
        sign_message(manifest, self.world.credentials(identity or self.name))
        return sites_pb2.SubmitGapRequest(manifest=manifest)

    async def submit(self, manifest: Any) -> None:
        await ask(self.stub.SubmitGap, self.signed(manifest), attempts=400)

    async def extracting(self, operator: Operator, request_id: str = "r1", **recipe: Any) -> Any:
        """The task of a new cycle, begun."""
        waiting = asyncio.create_task(self.next_task(sites_pb2.TASK_KIND_EXTRACT))
        await operator.until_known(self.name)
        await operator.start(self.name, request_id=request_id, **recipe)
        task = await waiting
        await self.begin(task.cycle_id)
        return task

    async def extract(self, task: Any, *names: str, change: float = 0.05) -> None:
        """All of the site's half, as a user domain does it."""
        await self.begin(task.cycle_id)
        names = names or ("forklift",)
        labels = await self.propose(task.cycle_id, *names)
        await self.submit(await self.manifest(task, labels, change, taught=names))

    async def validate(self, cycle_id: str, map50: float = 0.7) -> None:
        request = sites_pb2.SubmitValidationRequest(cycle_id=cycle_id, after=metrics(map50, self.learned))
        await ask(self.stub.SubmitValidation, request, attempts=400)

    async def validate_external(self, cycle_id: str, before: float, after: float) -> None:
        request = sites_pb2.SubmitValidationRequest(cycle_id=cycle_id, before=metrics(before), after=metrics(after))
        await ask(self.stub.SubmitValidation, request, attempts=400)

    async def work(self, *names: str, map50: float = 0.7) -> None:
        """Takes whatever task comes, until cancelled; a task that is over is dropped, as the contract says.

        `names` are the classes that it adds.
        """
        from diredi.errors import WrongState

        async for message in self.tasks():
            task = message.task
            with suppress(WrongState):
                if task.kind == sites_pb2.TASK_KIND_EXTRACT and task.approved:
                    await self.extract(task, *names)
                elif task.kind == sites_pb2.TASK_KIND_VALIDATE:
                    await self.validate(task.cycle_id, map50)


class DeviceSide:
    def __init__(self, world: World, name: str, site: str, identity: str) -> None:
        self.name, self.site, self.patience_s = name, site, world.patience_s
        self.folder = world.folder / "devices" / site / name
        self.credentials = world.credentials(identity)
        self.stub = fleet_pb2_grpc.FleetServiceStub(world.channel(identity))
        self.blobs = registry_pb2_grpc.BlobServiceStub(world.channel(identity))

    async def register(self) -> None:
        await ask(self.stub.RegisterDevice, fleet_pb2.RegisterDeviceRequest(device=self.name, site=self.site))

    def releases(self) -> AsyncIterator[Any]:
        request = fleet_pb2.WatchReleasesRequest(device=self.name)
        return watch_stream(lambda: self.stub.WatchReleases(request), backoff=Backoff(0.05, 0.3))

    async def until(self, version: int) -> Any:
        async with asyncio.timeout(self.patience_s):
            async for message in self.releases():
                if message.release.version == version:
                    return message.release
        raise AssertionError

    async def fetch(self, version: int) -> bytes:
        """The proof that this device has the file of a release; empty where the cloud does not name it to it."""
        async with asyncio.timeout(self.patience_s):
            release = (await anext(self.releases())).release
        if release.version != version:
            return b""
        blob = convert.blob_from(release.onnx)
        path = self.folder / blob.digest.removeprefix("sha256:")
        await blobs.download(self.blobs, blob, path, attempts=400, backoff=Backoff(0.05, 0.5))
        return possession_of(release.challenge, [path.read_bytes()])

    async def report(
        self,
        version: int,
        outcome: fleet_pb2.InstallOutcome.ValueType = fleet_pb2.INSTALL_OUTCOME_INSTALLED,
        reason: str = "",
    ) -> None:
        installed = outcome == fleet_pb2.INSTALL_OUTCOME_INSTALLED
        request = fleet_pb2.ReportInstallRequest(
            device=self.name, release_version=version, outcome=outcome, reason=reason,
            possession=await self.fetch(version) if installed else b"",
        )  # fmt: skip
        sign_message(request, self.credentials)
        await ask(self.stub.ReportInstall, request, attempts=400)

    async def work(self) -> None:
        """Installs whatever comes, until cancelled."""
        running = 0
        async for message in self.releases():
            if message.release.version not in (0, running):
                running = message.release.version
                await self.report(running)


def metrics(map50: float, name: str = "car") -> common_pb2.DetectionMetrics:
    one = common_pb2.ClassMetrics(ap50=map50, ap50_95=map50, boxes=3)
    return common_pb2.DetectionMetrics(
        map50=map50, map50_95=map50, precision=map50, recall=map50, f1=map50, per_class={name: one}, images=8
    )


def make_gap(
    base: Path, base_id: str, labels: LabelSpace, change: float, taught: Sequence[str] = ()
) -> tuple[bytes, WeightMap]:
    """A gap's bytes and its weights. `taught`: the new classes of its site; none named: all."""
    gap = gap_weights(base, labels, change, taught)
    known = DetectorSpec.of_file(base).labels
    new = tuple(name for name in labels.new_since(known) if name in taught) if taught else None
    note = GapNote(base_id=base_id, labels=labels, base_classes=len(known), taught=new)
    return Gap(gap, note).to_bytes(CODEC), gap


def row_of(name: str) -> float:
    """What a site's gap has in the row of a class that it has learned."""
    return float(sum(name.encode()))


def gap_weights(base: Path, labels: LabelSpace, change: float, taught: Sequence[str] = ()) -> WeightMap:
    weights, known = WeightMap.load(base), DetectorSpec.of_file(base).labels
    head = np.zeros_like(weights[toy.ROWS])
    new = labels.new_since(known)
    values = [row_of(name) if name in taught or not taught else -1.0 for name in new]
    rows = np.repeat(np.array(values, np.float32)[:, None], head.shape[1], 1)
    return WeightMap(
        {"body.weight": np.full_like(weights["body.weight"], change), toy.ROWS: np.concatenate([head, rows])}
    )


__all__ = [
    "QUICK",
    "STYLE",
    "DeviceSide",
    "Operator",
    "SiteSide",
    "World",
    "ask",
    "metrics",
    "gap_weights",
    "make_gap",
    "row_of",
    "state_of",
    "toy",
]
