"""An overlay's whole trip: measured and judged at the site, run by its edge node over the release, told to nobody."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from site_doubles import FakeSiteService, Local, config_of, running

from cloud_server import starter
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.export import export_onnx
from diredi.errors import InvalidInput, Refused
from diredi.rpc import blobs, convert
from diredi.rpc.blobs import BlobServicer
from diredi.rpc.client import call, connect
from diredi.rpc.v1 import overlay_pb2, registry_pb2
from diredi.rpc.v1.overlay_pb2_grpc import OverlayServiceStub
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub, RegistryServiceServicer
from diredi.store.blobs import BlobStore
from diredi.trust.identity import Identity, Role
from diredi.trust.release_repository import ReleaseRepository
from tests.services.edge import edge_doubles
from tests.support.pki import Pki
from tests.support.stub_cloud import StubCloud
from tests.support.waiting import PATIENCE_S, until
from user_domain.config import UserDomainConfig

pytestmark = pytest.mark.usefixtures("quick_processes")


class FakeRegistry(RegistryServiceServicer):
    """The models of the releases."""

    def __init__(self) -> None:
        self.models: list[Any] = []

    async def ListModels(self, request: registry_pb2.ListModelsRequest, context: Any) -> Any:
        return registry_pb2.ListModelsResponse(models=self.models)


class Manufacturer(StubCloud):
    """A cloud with releases, for a site and its device."""

    def __init__(self, folder: Path, pki: Pki) -> None:
        self.folder, self.store, self.registry = folder, BlobStore(folder / "blobs"), FakeRegistry()
        repository = ReleaseRepository(folder / "releases", pki.issue("cloud", "cloud"))
        self.fleet = edge_doubles.FakeFleetService(self.store, repository)
        servicers = [FakeSiteService(), self.registry, self.fleet, BlobServicer(self.store)]
        super().__init__(pki.credentials("cloud", "cloud"), servicers)

    async def release(self, version: int, student: Detector) -> str:
        """Publish a student and return the digest of its ONNX file."""
        weights, onnx = self.folder / f"{version}.safetensors", self.folder / f"{version}.onnx"
        student.save(weights)
        export_onnx(student, onnx)
        model = convert.Model(student.digest, "student", student.spec, self.store.add_file(weights))
        message = convert.model_to(model)
        message.onnx.CopyFrom(convert.blob_to(self.store.add_file(onnx)))
        self.registry.models.insert(0, message)
        await self.fleet.publish(version, onnx, student.spec)
        return message.onnx.digest


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return registry.load(starter.unpack(tmp_path_factory.mktemp("starter")).student, device="cpu")


def estranged(student: Detector) -> Detector:
    """A release that has learned from images of more contrast than any that there are."""
    weights = student.weights().mapped(lambda name, array: array * 4 if name.endswith("running_var") else array)
    return registry.from_weights(student.spec, weights, "cpu")


@asynccontextmanager
async def manufacturer(folder: Path, pki: Pki) -> AsyncIterator[Manufacturer]:
    cloud = Manufacturer(folder, pki)
    await cloud.start()
    try:
        yield cloud
    finally:
        await cloud.stop()


async def overlays_of(site: Local) -> Any:
    request = overlay_pb2.ListOverlaysRequest()
    return (await call(OverlayServiceStub(site.channel).ListOverlays, request, deadline_s=PATIENCE_S)).overlays


async def site_status(config: UserDomainConfig) -> str:
    """What `diredi site status` prints at the site."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "diredi_cli", "site", "status", config.listen, "--identity", str(config.identity),
        cwd=Path(__file__).parents[3], stdout=PIPE, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    return (await process.communicate())[0].decode()


@pytest.mark.slow
async def test_a_node_runs_its_release_under_the_overlay_of_its_site_and_nobody_else_hears_of_it(
    tmp_path: Path, pki: Pki, student: Detector
) -> None:
    async with manufacturer(tmp_path / "cloud", pki) as cloud:
        first = await cloud.release(1, estranged(student))
        shown = {"scenes_train": 8, "scenes_val": 6, "overlay": True}
        site_config = config_of(tmp_path / "site", pki, cloud.address, "scenes:presumed", **shown)
        async with running(site_config, pki) as site:
            source = f"folder:{next((tmp_path / 'site').rglob('images/val'))}"
            asks: dict[str, Any] = {"user_domain": site_config.listen, "overlay": True, "overlay_every_s": 0.2}
            asks["frames_per_second"] = 5
            node_config = edge_doubles.config_of(tmp_path / "node", pki, cloud.address, source, **asks)
            async with edge_doubles.running(node_config, pki) as node:
                status = await node.until(lambda status: bool(status.overlay))
                (overlay,) = await overlays_of(site)
                assert (overlay.release, overlay.digest, status.release_version) == (first, status.overlay, 1)
                assert overlay.after.map50 > overlay.before.map50 + 0.02
                await node.until(lambda later: later.frames > status.frames + 3)  # it detects, and stays
                told = {str(heartbeat) for heartbeat in cloud.fleet.heartbeats} | {str(cloud.fleet.reports)}
                assert not any(overlay.digest in text or "overlay" in text for text in told)
                left = {name.removeprefix("diredi.v1.") for name in (await site.status()).sent_bytes}
                assert left == {"WatchTasksRequest", "ListModelsRequest", "GetBlobRequest"}
                assert (
                    cloud.store.stat(overlay.digest).complete is cloud.store.stat(overlay.onnx.digest).complete is False
                )

                assert "in use, 100 %" in await site_status(site_config)

                spy = pki.credentials("device", "spy", "site-2")
                stranger = connect(site_config.listen, spy, server=Identity(Role.SITE, "site-1"))
                with pytest.raises(Refused):
                    request = overlay_pb2.GetOverlayRequest(release=first)
                    await call(OverlayServiceStub(stranger).GetOverlay, request, deadline_s=PATIENCE_S)
                with pytest.raises(Refused):
                    blob = convert.blob_from(overlay.onnx)
                    await blobs.download(BlobServiceStub(stranger), blob, tmp_path / "stolen", attempts=1)
                await stranger.close()

        # The site's service is gone: the node starts with what it has.
        async with edge_doubles.running(node_config, pki) as node:
            assert (await node.until(lambda status: status.release_version == 1)).overlay == overlay.digest
            await cloud.release(2, student)
            status = await node.until(lambda status: status.release_version == 2)
            assert status.overlay == ""  # a new release runs alone until the site has measured one for it
            assert status.dropped_frames == 0


async def test_a_site_without_labels_cannot_judge_an_overlay(tmp_path: Path, pki: Pki, data: Path) -> None:
    for wish in ("overlay", "quantise"):
        config = config_of(tmp_path / "site", pki, "localhost:1", data, labelled=False, **{wish: True})
        with pytest.raises(InvalidInput, match=f"{wish} needs labels"):
            async with running(config, pki):
                pass


async def test_a_release_that_the_cloud_does_not_show_has_no_overlay(tmp_path: Path, pki: Pki, data: Path) -> None:
    async with manufacturer(tmp_path / "cloud", pki) as cloud:
        config = config_of(tmp_path / "site", pki, cloud.address, data, overlay=True)
        async with running(config, pki) as site:
            stub = OverlayServiceStub(site.channel)
            with pytest.raises(InvalidInput, match="digest"):
                await call(stub.GetOverlay, overlay_pb2.GetOverlayRequest(release="1"), deadline_s=PATIENCE_S)
            request = overlay_pb2.GetOverlayRequest(release="sha256:" + "7" * 64)

            async def answered() -> bool:
                said = (await call(stub.GetOverlay, request, deadline_s=PATIENCE_S)).overlay
                return said.state == overlay_pb2.OVERLAY_STATE_NONE and "no release" in said.problem

            await until(answered)
