"""The other sides of a user domain: a cloud with memory only that keeps to the contract, an edge node, a data set."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diredi.errors import DirediError, NoRoom, WrongState
from diredi.labels import LabelSpace
from diredi.rpc import convert
from diredi.rpc.blobs import BlobServicer
from diredi.rpc.caller import caller_identity
from diredi.rpc.client import call, connect
from diredi.rpc.v1 import cycles_pb2, cycles_pb2_grpc, local_pb2, registry_pb2, sites_pb2, sites_pb2_grpc
from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
from diredi.store.blobs import BlobStore
from diredi.trust.identity import Credentials, Identity, Role
from tests.support.net import free_port
from tests.support.pki import Pki
from tests.support.stub_cloud import StubCloud
from tests.support.waiting import PATIENCE_S, until
from user_domain.config import UserDomainConfig
from user_domain.consent import ConsentJournal
from user_domain.site import serve

ROOT = Path(__file__).parents[3]
CLASSES = ("car", "person", "forklift")
RECIPE: dict[str, Any] = {
    "form": "weights",
    "tutor": {"epochs": 1, "batch": 4},
    "student": {"epochs": 1, "batch": 4},
    "coreset_images": 4,
    "student_gap": False,
}


def write_data_set(folder: Path, train: int = 8, val: int = 4, classes: int = len(CLASSES)) -> Path:
    """Bright rectangles on noise, of the first `classes` of CLASSES; file names that nobody else would use."""
    random = np.random.default_rng(7)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            name = f"private-gate-{split}-{index:03d}"
            image = random.integers(0, 255, (64, 64, 3), np.uint8)
            lines = []
            for class_id in range(classes):
                x, y, w, h = (round(float(v), 6) for v in random.uniform([0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.4, 0.4]))
                low, high = ((x - w / 2), (y - h / 2)), ((x + w / 2), (y + h / 2))
                corners = [tuple(int(v * 64) for v in corner) for corner in (low, high)]
                cv2.rectangle(image, corners[0], corners[1], (80 * class_id, 200, 255 - 80 * class_id), -1)
                lines.append(f"{class_id} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n")
            cv2.imwrite(str(folder / "images" / split / f"{name}.jpg"), image)
            (folder / "labels" / split / f"{name}.txt").write_text("".join(lines))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(CLASSES[:classes]))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return folder / "data.yaml"


class FakeBlobService(BlobServicer):
    """Serves blobs; counts what is put, and closes its doors after so many chunks when told to."""

    put_bytes = 0
    full = False
    hold_after: int | None = None
    chunks = 0

    async def PutChunk(self, request: registry_pb2.PutChunkRequest, context: Any) -> Any:
        if self.full:
            raise NoRoom("no room on the disk of /secret/of/the/cloud")
        if self.hold_after is not None and self.chunks >= self.hold_after:
            await asyncio.Event().wait()
        self.chunks += 1
        self.put_bytes += len(request.data)
        return await super().PutChunk(request, context)


class FakeSiteService(sites_pb2_grpc.SiteServiceServicer):
    """SiteService as the contract tells it. `tasks` are the open ones; whatever a site says is written down."""

    def __init__(self) -> None:
        self.tasks: dict[str, sites_pb2.Task] = {}
        self.changed = asyncio.Condition()
        self.watchers = 0
        self.auto_approve: bool | None = None
        self.publish_style: bool | None = None
        self.progress: list[tuple[str, float, str]] = []
        self.labels = LabelSpace(names=("car", "person"))
        self.gaps: list[cycles_pb2.GapManifest] = []
        self.validations: list[sites_pb2.SubmitValidationRequest] = []
        self.failures: list[tuple[str, str]] = []
        self.refuse_gap: DirediError | None = None
        self.fails: dict[str, list[Exception]] = {}
        """Method to what it raises instead of answering, one after the other."""
        self.callers: set[str] = set()
        self.may_propose = asyncio.Event()
        """While it is not set, the answer to ProposeClasses waits."""
        self.may_propose.set()

    async def offer(self, task: sites_pb2.Task) -> None:
        async with self.changed:
            self.tasks[task.id] = task
            self.changed.notify_all()

    def _fail(self, method: str) -> None:
        if self.fails.get(method):
            raise self.fails[method].pop()

    async def WatchTasks(self, request: sites_pb2.WatchTasksRequest, context: Any) -> AsyncIterator[Any]:
        self._fail("WatchTasks")
        self.callers.add(str(caller_identity(context)))
        self.auto_approve, self.publish_style = request.auto_approve, request.publish_style
        self.watchers += 1
        said: dict[str, sites_pb2.Task] = {}
        while True:
            fresh = [task for name, task in self.tasks.items() if said.get(name) != task]
            said = dict(self.tasks)
            for task in fresh:
                yield sites_pb2.WatchTasksResponse(task=task)
            if not fresh:
                yield sites_pb2.WatchTasksResponse()
                async with self.changed:
                    await asyncio.wait({asyncio.create_task(self._change())}, timeout=0.5)

    async def _change(self) -> None:
        async with self.changed:
            await self.changed.wait()

    async def ReportProgress(self, request: sites_pb2.ReportProgressRequest, context: Any) -> Any:
        self._fail("ReportProgress")
        open_tasks = [task for task in self.tasks.values() if task.cycle_id == request.cycle_id]
        if not any(task.kind == sites_pb2.TASK_KIND_EXTRACT and task.approved for task in open_tasks):
            raise WrongState(f"cycle {request.cycle_id} is not extracting")
        said = request.progress
        self.progress.append((said.step, said.fraction, said.message))
        return sites_pb2.ReportProgressResponse()

    async def ProposeClasses(self, request: sites_pb2.ProposeClassesRequest, context: Any) -> Any:
        await self.may_propose.wait()
        self._fail("ProposeClasses")
        self.labels.check_decided(request.names, request.distinct)
        self.labels = self.labels.expand(request.names, distinct=request.distinct)
        return sites_pb2.ProposeClassesResponse(labels=convert.labels_to(self.labels))

    async def SubmitGap(self, request: sites_pb2.SubmitGapRequest, context: Any) -> Any:
        self._fail("SubmitGap")
        if self.refuse_gap is not None:
            raise self.refuse_gap
        self.gaps.append(request.manifest)
        self.tasks.pop(f"{request.manifest.cycle_id}/extract", None)
        return sites_pb2.SubmitGapResponse()

    async def SubmitValidation(self, request: sites_pb2.SubmitValidationRequest, context: Any) -> Any:
        self._fail("SubmitValidation")
        self.validations.append(request)
        for kind in ("validate", "validate-external"):
            self.tasks.pop(f"{request.cycle_id}/{kind}", None)
        return sites_pb2.SubmitValidationResponse()

    async def FailTask(self, request: sites_pb2.FailTaskRequest, context: Any) -> Any:
        self._fail("FailTask")
        self.failures.append((request.task_id, request.reason))
        self.tasks.pop(request.task_id, None)
        return sites_pb2.FailTaskResponse()


class FakeCycleService(cycles_pb2_grpc.CycleServiceServicer):
    """What a site says about taking part, written down; its yes shows in the task, as the contract tells it."""

    def __init__(self, site: FakeSiteService) -> None:
        self.site = site
        self.approvals: list[str] = []
        self.declined: list[tuple[str, str]] = []

    async def ApproveCycle(self, request: cycles_pb2.ApproveCycleRequest, context: Any) -> Any:
        self.approvals.append(request.id)
        for task in self.site.tasks.values():
            task.approved |= task.cycle_id == request.id
        return cycles_pb2.ApproveCycleResponse()

    async def DeclineCycle(self, request: cycles_pb2.DeclineCycleRequest, context: Any) -> Any:
        self.declined.append((request.id, request.reason))
        self.site.tasks.pop(f"{request.id}/extract", None)
        return cycles_pb2.DeclineCycleResponse()


class SiteCloud(StubCloud):
    def __init__(self, folder: Path, pki: Pki, credentials: Credentials | None = None) -> None:
        self.store = BlobStore(folder / "blobs")
        self.site = FakeSiteService()
        self.blobs = FakeBlobService(self.store)
        self.cycles = FakeCycleService(self.site)
        super().__init__(credentials or pki.credentials("cloud", "cloud"), [self.site, self.blobs, self.cycles])


@dataclass(frozen=True)
class Models:
    """Real detectors, tiny and untrained: the task's tutor and student, and a candidate as ONNX."""

    tutor: Path
    student: Path
    onnx: Path
    coreset: Path

    def extract_task(
        self, cloud: SiteCloud, cycle: str = "cycle-1", *, approved: bool = True, recipe: dict[str, Any] | None = None
    ) -> sites_pb2.Task:
        task = sites_pb2.Task(
            id=f"{cycle}/extract",
            kind=sites_pb2.TASK_KIND_EXTRACT,
            cycle_id=cycle,
            approved=approved,
            recipe=convert.struct_to(RECIPE if recipe is None else recipe),
        )
        task.tutor.CopyFrom(self._model(cloud, "tutor", self.tutor))
        task.student.CopyFrom(self._model(cloud, "student", self.student))
        task.coreset.CopyFrom(convert.blob_to(cloud.store.add_file(self.coreset)))
        return task

    def validate_task(
        self, cloud: SiteCloud, cycle: str = "cycle-1", recipe: dict[str, Any] | None = None
    ) -> sites_pb2.Task:
        task = sites_pb2.Task(
            id=f"{cycle}/validate",
            kind=sites_pb2.TASK_KIND_VALIDATE,
            cycle_id=cycle,
            recipe=convert.struct_to(RECIPE if recipe is None else recipe),
        )
        task.student.CopyFrom(self._model(cloud, "student", self.student))
        task.student.onnx.CopyFrom(convert.blob_to(cloud.store.add_file(self.onnx)))
        return task

    def external_task(self, cloud: SiteCloud, cycle: str = "others") -> sites_pb2.Task:
        task = sites_pb2.Task(
            id=f"{cycle}/validate-external",
            kind=sites_pb2.TASK_KIND_VALIDATE_EXTERNAL,
            cycle_id=cycle,
            scope="fleet",
        )
        for model in (task.student, task.deployed):
            model.CopyFrom(self._model(cloud, "student", self.student))
            model.onnx.CopyFrom(convert.blob_to(cloud.store.add_file(self.onnx)))
        return task

    def _model(self, cloud: SiteCloud, kind: str, path: Path) -> Any:
        from diredi.detectors.spec import DetectorSpec

        blob = cloud.store.add_file(path)
        return convert.model_to(convert.Model(blob.digest, kind, DetectorSpec.of_file(path), blob))


def config_of(folder: Path, pki: Pki, cloud: str, data: Path | str, **more: Any) -> UserDomainConfig:
    values: dict[str, Any] = {
        "site": "site-1",
        "cloud": cloud,
        "identity": pki.issue("site", "site-1"),
        "state_dir": folder,
        "listen": f"127.0.0.1:{free_port()}",
        "data": str(data),
        "progress_every_s": 0.1,
        "retry_longest_s": 0.5,
        "min_held_out": 3,
    }
    return UserDomainConfig(**{**values, **more})


def take_part(config: UserDomainConfig, *cycles: str) -> None:
    """Let a site have approved and uploaded, as its journal has it then, without the training in between."""
    journal = ConsentJournal(config.state_dir / "consent.jsonl", Credentials.load(config.identity))
    for cycle in cycles or ("cycle-1",):
        journal.record("approved", cycle, {"recipe": RECIPE, "image_size": 64, "tutor": ""})
        journal.record("uploaded", cycle, {"gaps": []})


async def at_the_site(config: UserDomainConfig, command: str, *arguments: str) -> str:
    """The `diredi` command on the site's machine, with the site's key."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "diredi_cli", "site", command, config.listen, *arguments,
        "--identity", str(config.identity), cwd=ROOT, stdout=PIPE, stderr=PIPE, env={**os.environ, "COLUMNS": "250"},
    )  # fmt: skip
    printed, noted = (part.decode() for part in await process.communicate())
    assert process.returncode == 0, noted
    return printed


class Local:
    """A running user domain, seen by an edge node of its site."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self.channel = connect(address, credentials, server=Identity(Role.SITE, "site-1"))
        self.stub = LocalServiceStub(self.channel)

    async def status(self) -> local_pb2.GetSiteStatusResponse:
        return await call(self.stub.GetSiteStatus, local_pb2.GetSiteStatusRequest(), deadline_s=PATIENCE_S)

    async def hand(self, image: bytes, device: str = "camera-1", doubt: float = 0.9) -> bool:
        box = local_pb2.SampleBox(class_name="car", x=0.5, y=0.5, width=0.2, height=0.2, confidence=0.3)
        request = local_pb2.HandSampleRequest(
            device=device, image=image, detections=[box], reasons=[local_pb2.SAMPLE_REASON_UNCERTAIN], doubt=doubt
        )
        return (await call(self.stub.HandSample, request, deadline_s=PATIENCE_S)).stored


@asynccontextmanager
async def running(config: UserDomainConfig, pki: Pki) -> AsyncIterator[Local]:
    """A user domain in this process, from its start to its stop."""
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(config, stop))
    local = Local(config.listen, pki.credentials("device", "camera-1", "site-1"))

    async def answers() -> bool:
        if serving.done():
            return True
        try:
            await local.status()
        except DirediError:
            return False
        return True

    try:
        await until(answers)
        if serving.done():
            await serving
        yield local
    finally:
        await local.channel.close()
        stop.set()
        await serving
