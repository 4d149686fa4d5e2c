"""Who may say and read what, by the certificate that he shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from diredi.errors import InvalidInput, NotFound, Refused, Unreachable
from diredi.rpc import blobs, convert
from diredi.rpc.client import connect
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import cycles_pb2, cycles_pb2_grpc, fleet_pb2, registry_pb2, registry_pb2_grpc, sites_pb2
from diredi.trust import ca
from diredi.trust.identity import Credentials
from tests.services.cloud.extracting import STRANGER, extracting
from tests.services.cloud.world import World, ask, state_of


async def test_everyone_speaks_for_himself_only(world: World) -> None:
    async with extracting(world) as e:
        other, camera, operator = world.site("site-2"), world.device(), e.operator
        cycle_id = e.task.cycle_id

        as_site, as_camera = e.site.cycles, cycles_pb2_grpc.CycleServiceStub(world.channel("cam-1"))
        start = cycles_pb2.StartCycleRequest(site="site-1", request_id="x")
        get = cycles_pb2.GetCycleRequest(id=cycle_id)
        approve = cycles_pb2.ApproveCycleRequest(id=cycle_id)
        forged = cycles_pb2.GapManifest()
        forged.CopyFrom(e.manifest)
        submit, submit_as_other = e.site.signed(e.manifest), other.signed(forged)
        before = e.stores()
        for method, request in [
            (as_site.StartCycle, start),
            (as_camera.StartCycle, start),
            (as_camera.GetCycle, get),
            (as_camera.ListCycles, cycles_pb2.ListCyclesRequest()),
            (other.cycles.GetCycle, get),
            (other.cycles.ListCycles, cycles_pb2.ListCyclesRequest(site="site-1")),
            (operator.cycles.ApproveCycle, approve),
            (operator.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=cycle_id)),
            (other.cycles.ApproveCycle, approve),
            (as_camera.ApproveCycle, approve),
            (other.stub.SubmitGap, submit),
            (other.stub.SubmitGap, submit_as_other),
            (operator.sites.SubmitGap, submit),
            (other.stub.ReportProgress, sites_pb2.ReportProgressRequest(cycle_id=cycle_id)),
            (other.stub.ProposeClasses, sites_pb2.ProposeClassesRequest(cycle_id=cycle_id, names=["x"])),
            (other.stub.FailTask, sites_pb2.FailTaskRequest(task_id=e.task.id)),
            (e.site.stub.ListSites, sites_pb2.ListSitesRequest()),
            (camera.stub.ListDevices, fleet_pb2.ListDevicesRequest()),
            (camera.stub.RegisterDevice, fleet_pb2.RegisterDeviceRequest(device="cam-2", site="site-1")),
            (camera.stub.RegisterDevice, fleet_pb2.RegisterDeviceRequest(device="cam-1", site="site-2")),
            (camera.stub.Heartbeat, fleet_pb2.HeartbeatRequest(device="cam-2")),
            (camera.stub.ReportInstall, fleet_pb2.ReportInstallRequest(device="cam-2", release_version=1, outcome=1)),
            (camera.blobs.PutChunk, registry_pb2.PutChunkRequest(digest=STRANGER, total_bytes=1, data=b"x")),
            (
                registry_pb2_grpc.RegistryServiceStub(world.channel("cam-1")).ListModels,
                registry_pb2.ListModelsRequest(),
            ),
        ]:
            with pytest.raises(Refused):
                await ask(method, request)
        for stream in (
            other.stub.WatchTasks(sites_pb2.WatchTasksRequest(site="site-1")),
            operator.sites.WatchTasks(sites_pb2.WatchTasksRequest(site="site-1")),
            camera.stub.WatchReleases(fleet_pb2.WatchReleasesRequest(device="cam-2")),
            other.cycles.WatchCycle(cycles_pb2.WatchCycleRequest(id=cycle_id)),
        ):
            with pytest.raises(Refused):
                await anext(read_messages(stream, 20))
        assert e.stores() == before


async def test_a_blob_is_read_only_by_those_whom_it_is_for(world: World) -> None:

    async with extracting(world) as e:
        other, camera = world.site("site-2"), world.device()
        gap = e.manifest.tutor_gap.blob
        with pytest.raises(NotFound):
            await other.fetch(gap)
        with pytest.raises(NotFound):
            await blobs.download(camera.blobs, convert.blob_from(e.task.tutor.weights), world.folder / "tutor")
        with pytest.raises(NotFound):
            await blobs.download(camera.blobs, convert.blob_from(e.task.coreset), world.folder / "coreset")
        assert await blobs.download(camera.blobs, convert.blob_from(e.task.student.onnx), world.folder / "onnx")


async def test_weights_are_read_while_a_task_names_them_and_what_was_rejected_by_nobody(world: World) -> None:
    async with world.cloud():
        site, other, operator, camera = world.site(), world.site("site-2"), world.operator(), world.device()
        task = await site.extracting(operator)
        for ref in (task.tutor.weights, task.student.weights, task.coreset):
            assert await site.fetch(ref)
        for ref in (task.tutor.weights, task.coreset):
            with pytest.raises(NotFound):
                await other.fetch(ref)  # of the same scope, without a task
        await site.extract(task, change=-0.2)
        assert state_of(await operator.until(task.cycle_id, "REJECTED")) == "REJECTED"
        models = (await ask(operator.registry.ListModels, registry_pb2.ListModelsRequest())).models
        rejected = [model.weights for model in models if model.cycle_id == task.cycle_id]
        tutors = [model.weights for model in models if not model.cycle_id and model.id != task.student.id]
        assert rejected, "there is a model that a gate has rejected"
        assert tutors
        for ref in (*rejected, *tutors, task.coreset):
            assert await operator.fetch(ref)
            for side in (site, other, camera):
                with pytest.raises(NotFound):
                    await blobs.download(side.blobs, convert.blob_from(ref), world.folder / "taken")
        registry = registry_pb2_grpc.RegistryServiceStub(world.channel("site-1"))
        seen = {model.id for model in (await ask(registry.ListModels, registry_pb2.ListModelsRequest())).models}
        assert not seen & {model.id for model in models if model.cycle_id}


async def test_whether_a_blob_is_there_is_told_to_nobody_who_may_not_read_it(world: World) -> None:
    async with extracting(world) as e:
        other, camera = world.site("site-2"), world.device()
        digests = [e.manifest.tutor_gap.blob.digest, e.task.tutor.weights.digest, e.task.coreset.digest]
        for digest in digests:
            for side in (other, camera):
                there, made_up = [
                    await ask(side.blobs.StatBlob, registry_pb2.StatBlobRequest(digest=name))
                    for name in (digest, STRANGER)
                ]
                assert there == made_up
            assert (await ask(e.operator.blobs.StatBlob, registry_pb2.StatBlobRequest(digest=digest))).complete
        with pytest.raises(InvalidInput):
            await ask(other.blobs.StatBlob, registry_pb2.StatBlobRequest(digest="../../etc/passwd"))


async def test_a_caller_without_our_certificate_reaches_no_handler(world: World, tmp_path: Path) -> None:

    ca.init(tmp_path / "foreign")
    ca.issue(tmp_path / "foreign", "operator", "mallory", [], tmp_path / "mallory")
    async with world.cloud():
        await world.operator().known_sites()
        async with connect(world.address, Credentials.load(tmp_path / "mallory")) as channel:
            stub = cycles_pb2_grpc.CycleServiceStub(channel)
            with pytest.raises(Unreachable):
                await ask(stub.StartCycle, cycles_pb2.StartCycleRequest(site="site-1", request_id="x"))
    counted = [path.name for path in (world.state_dir / "ingress").iterdir()]
    assert any("operator" in name for name in counted)
    assert not any("mallory" in name for name in counted), "what reaches a handler is counted by its peer"
