"""A harness for the updater: files of a cloud, models described in JSON, and a power switch."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from diredi.detectors.predictor import Detections, Image
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData, DirediError, Unreachable, Untrusted
from diredi.labels import LabelSpace
from edge_node.active_model import ActiveModel
from edge_node.release_trust import ReleaseTrust
from edge_node.site_rules import UpdateWait
from edge_node.update_states import InstallableRelease, State, UpdateRecord
from edge_node.update_store import UpdateStore
from edge_node.updater import Shadow, Updater
from tests.support.waiting import PATIENCE_S

FRAME = np.zeros((48, 64, 3), np.uint8)


class DescribedModel:
    """A predictor whose file says how it behaves: "breaks" is null, "load", "warm-up", "live" or "later"."""

    def __init__(self, path: Path) -> None:
        said = json.loads(path.read_text())
        if said["breaks"] == "load":
            raise CorruptData(f"{path.name} is no model")
        self.labels = LabelSpace(names=tuple(said["labels"]))
        self.spec = DetectorSpec(architecture="described", image_size=said["image_size"], labels=self.labels)
        self._breaks = said["breaks"]
        self._calls = 0

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        self._calls += 1
        frames = {"warm-up": 0, "live": 2, "later": 7}.get(self._breaks, 2**60)
        if self._calls > frames:
            raise RuntimeError("the graph does not run")
        return [Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(images)


class PowerCut(BaseException):
    """The machine is off from here on."""


class UpdaterHarness(ReleaseTrust):
    """What lies outside the updater. `power_cut` is asked after each write of the record."""

    problem = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.forged: list[InstallableRelease] = []
        self.reports: list[tuple[int, bool, str]] = []
        self.fetches = 0
        self.fetch_error: DirediError | None = None
        self.cloud_away = False
        self.waits = UpdateWait.NONE
        self.power_cut: Callable[[UpdateRecord], bool] = lambda _: False
        self.states: list[State] = []
        self.active = ActiveModel()
        self.shadow: Shadow | None = None

    def publish(
        self,
        version: int,
        *,
        breaks: str | None = None,
        labels: tuple[str, ...] = ("car",),
        image_size: int = 64,
        bytes_of: int = 0,
        scope: str = "fleet",
    ) -> InstallableRelease:
        """A release; with the very bytes of another one (`bytes_of`) where a test goes back."""
        said = {"labels": ["car"], "image_size": 64, "breaks": breaks, "version": bytes_of or version}
        data = json.dumps(said).encode()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.files[digest] = data
        return InstallableRelease(
            version=version,
            digest=digest,
            bytes=len(data),
            labels=LabelSpace(names=labels),
            image_size=image_size,
            scope=scope,
        )

    async def prove(self, release: InstallableRelease) -> None:
        """Every release is proven but those that a test forges."""
        if release in self.forged:
            raise Untrusted(f"release {release.version} is not in the signed metadata")

    def check(self, release: InstallableRelease) -> None:
        if release in self.forged:
            raise Untrusted(f"release {release.version} was never proven")

    def recall(self, release: InstallableRelease) -> InstallableRelease:
        return release

    def forget_others(self, releases: set[str]) -> None:
        pass

    async def fetch(self, release: InstallableRelease, path: Path) -> None:
        self.fetches += 1
        if self.fetch_error is not None:
            raise self.fetch_error
        path.write_bytes(self.files[release.digest])

    async def report_install(self, version: int, digest: str, installed: bool, reason: str, possession: bytes) -> None:
        if self.cloud_away:
            raise Unreachable("the cloud is away")
        self.reports.append((version, installed, reason))

    def start(self) -> Updater:
        """As after switching the device on: nothing survives but the disk."""
        self.active = ActiveModel()
        updater = Updater(
            self.folder / "releases", _Switchable(self.folder / "update.json", self), self.active, trust=self,
            fetch=self.fetch, report_install=self.report_install, load=DescribedModel,
            frame=lambda: FRAME, shadow=self.shadow, retry_failed_s=0.01, away_s=0.01,
            wait_for=lambda version: self.waits,
        )  # fmt: skip
        updater.start_from_disk()
        return updater

    async def run(self, updater: Updater, until: Callable[[], bool]) -> None:
        """Runs the updater, with a camera beside it, until `until` or a power cut."""
        running = asyncio.create_task(updater.run())
        camera = asyncio.create_task(self._camera())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not until() and not running.done():
                    await asyncio.sleep(0.001)
            if running.done():
                running.result()
        finally:
            for task in (running, camera):
                task.cancel()
            await asyncio.gather(running, camera, return_exceptions=True)

    async def _camera(self) -> None:
        while True:
            if self.active.current is not None:
                with suppress(RuntimeError):  # a frame that no model could detect
                    self.active.detect(FRAME, 0.25)
            await asyncio.sleep(0.001)

    @property
    def running(self) -> int:
        return 0 if self.active.current is None else self.active.current.release.version


class _Switchable(UpdateStore):
    def __init__(self, path: Path, harness: UpdaterHarness) -> None:
        super().__init__(path)
        self._harness = harness

    def write(self, record: UpdateRecord) -> None:
        super().write(record)
        self._harness.states.append(record.state)
        if self._harness.power_cut(record):
            raise PowerCut
