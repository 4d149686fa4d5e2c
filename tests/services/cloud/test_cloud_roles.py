"""Who may say and read what, by the certificate that he shows."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.message import Message

from diredi.errors import InvalidInput, NoRoom, NotFound, Refused, Unreachable, WrongState
from diredi.rpc import blobs, convert
from diredi.rpc.client import connect
from diredi.rpc.message_signature import sign_message
from diredi.rpc.services import SERVICES
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import (
    cycles_pb2,
    cycles_pb2_grpc,
    enrolment_pb2,
    fleet_pb2,
    registry_pb2,
    registry_pb2_grpc,
    releases_pb2,
    sites_pb2,
)
from diredi.rpc.v1.pages_pb2 import OpenPagesRequest
from diredi.trust import ca
from diredi.trust.identity import Credentials
from tests.services.cloud.extracting import STRANGER, Extracting, extracting
from tests.services.cloud.world import World, ask, state_of
from tests.support.waiting import PATIENCE_S


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


VIEWERS = {"vera", "alice", "anna"}
OPERATORS = {"alice", "anna"}
ADMINS = {"anna"}
NEEDED = {
    frozenset(VIEWERS): "the role viewer or operator or admin",
    frozenset(OPERATORS): "the role operator or admin",
    frozenset(ADMINS): "the role admin",
}
ELSEWHERE = {"LocalService", "OverlayService", "EdgeService", "PeerService"}
STREAMS = (
    "CycleService/Watch", "SiteService/Watch", "FleetService/Watch", "FleetService/GetRel", "BlobService/Get",
    "ReleaseService/List", "ReleaseService/GetL",
)  # fmt: skip
EVERYBODY = {*VIEWERS, "site-1", "site-2", "cam-1", "cam-2", "twin", "cloud"}


def rules(e: Extracting) -> dict[str, tuple[Message, set[str]]]:
    """For each call of the cloud's contract a request, and who may make it while site-1 extracts; all others may not.

    What is allowed meets another check where it would change the cycle.
    """
    cycle_id, tutor = e.task.cycle_id, e.task.tutor.weights
    sites, uploaders = {"site-1", "site-2"}, {*OPERATORS, "site-1", "site-2"}
    of_another_base = cycles_pb2.GapManifest()
    of_another_base.CopyFrom(e.manifest)
    of_another_base.tutor_gap.base_id = "another"
    failed = fleet_pb2.ReportInstallRequest(device="cam-1", release_version=1, outcome=fleet_pb2.INSTALL_OUTCOME_FAILED)
    return {
        "CycleService/StartCycle": (cycles_pb2.StartCycleRequest(site="site-1", request_id="x"), OPERATORS),
        "CycleService/RebaseRelease": (cycles_pb2.RebaseReleaseRequest(scope="site:site-1", request_id="y"), OPERATORS),
        "CycleService/WatchCycle": (cycles_pb2.WatchCycleRequest(id=cycle_id), {*VIEWERS, "site-1"}),
        "CycleService/ListCycles": (cycles_pb2.ListCyclesRequest(site="site-1"), {*VIEWERS, "site-1"}),
        "CycleService/GetCycle": (cycles_pb2.GetCycleRequest(id=cycle_id), {*VIEWERS, "site-1"}),
        "CycleService/ApproveCycle": (cycles_pb2.ApproveCycleRequest(id=cycle_id), {"site-1"}),
        "SiteService/WatchTasks": (sites_pb2.WatchTasksRequest(site="site-1", auto_approve=True), {"site-1"}),
        "SiteService/ReportProgress": (sites_pb2.ReportProgressRequest(cycle_id=cycle_id), {"site-1"}),
        "SiteService/ProposeClasses": (sites_pb2.ProposeClassesRequest(cycle_id=cycle_id, names=["car"]), {"site-1"}),
        "SiteService/SubmitGap": (sites_pb2.SubmitGapRequest(manifest=of_another_base), {"site-1"}),
        "SiteService/SubmitValidation": (sites_pb2.SubmitValidationRequest(cycle_id=cycle_id), {"site-1"}),
        "SiteService/ListSites": (sites_pb2.ListSitesRequest(), VIEWERS),
        "SiteService/ListGroups": (sites_pb2.ListGroupsRequest(), VIEWERS),
        "SiteService/SetGroup": (sites_pb2.SetGroupRequest(group={"name": "g", "sites": ["nobody"]}), OPERATORS),
        "SiteService/RemoveGroup": (sites_pb2.RemoveGroupRequest(name="nothing"), OPERATORS),
        "FleetService/RegisterDevice": (fleet_pb2.RegisterDeviceRequest(device="cam-1", site="site-1"), {"cam-1"}),
        "FleetService/Heartbeat": (fleet_pb2.HeartbeatRequest(device="cam-1"), {"cam-1", "twin"}),
        "FleetService/WatchReleases": (fleet_pb2.WatchReleasesRequest(device="cam-1"), {"cam-1", "twin"}),
        "FleetService/GetReleaseMetadata": (fleet_pb2.GetReleaseMetadataRequest(name="timestamp.json"), EVERYBODY),
        "FleetService/ReportInstall": (failed, {"cam-1", "twin"}),
        "FleetService/ListDevices": (fleet_pb2.ListDevicesRequest(), VIEWERS),
        "ReleaseService/GetLineage": (releases_pb2.GetLineageRequest(version=1), VIEWERS),
        "ReleaseService/ListRollouts": (releases_pb2.ListRolloutsRequest(), VIEWERS),
        "ReleaseService/ChangeRollout": (releases_pb2.ChangeRolloutRequest(version=1, change=1), OPERATORS),
        "ReleaseService/ListUnsigned": (releases_pb2.ListUnsignedRequest(), OPERATORS),
        "ReleaseService/AddSignatures": (releases_pb2.AddSignaturesRequest(name="x", metadata=b"{}"), OPERATORS),
        "RegistryService/ListModels": (registry_pb2.ListModelsRequest(), {*VIEWERS, *sites}),
        "RegistryService/GetModel": (registry_pb2.GetModelRequest(id=e.task.student.id), {*VIEWERS, *sites}),
        "BlobService/StatBlob": (registry_pb2.StatBlobRequest(digest=STRANGER), EVERYBODY),
        "BlobService/PutChunk": (
            registry_pb2.PutChunkRequest(digest=STRANGER, total_bytes=10**12, data=b"x"), uploaders
        ),
        "BlobService/GetBlob": (registry_pb2.GetBlobRequest(digest=tutor.digest), {*OPERATORS, "site-1"}),
        "EnrolmentService/CreateToken": (enrolment_pb2.CreateTokenRequest(identity="site/site-4", valid_s=60), ADMINS),
        "EnrolmentService/GetTrust": (enrolment_pb2.GetTrustRequest(), EVERYBODY),
        "EnrolmentService/Retire": (enrolment_pb2.RetireRequest(identity="site/site-9"), ADMINS),
        "EnrolmentService/Enrol": (enrolment_pb2.EnrolRequest(), set()),
        "EnrolmentService/RenewCertificate": (enrolment_pb2.RenewCertificateRequest(), EVERYBODY),
        "PageService/OpenPages": (OpenPagesRequest(), VIEWERS),
        "CycleService/DeclineCycle": (cycles_pb2.DeclineCycleRequest(id=cycle_id), {"site-1"}),
        "SiteService/FailTask": (sites_pb2.FailTaskRequest(task_id=f"{cycle_id}/validate"), {"site-1"}),
    }  # fmt: skip


@pytest.mark.slow
async def test_each_call_as_each_identity(world: World) -> None:
    """`twin` is cam-1 of another site: what it says of itself is of that one."""
    async with extracting(world) as e:
        wanted = rules(e)
        served = {
            f"{service.name.removeprefix('diredi.v1.')}/{name}"
            for service in SERVICES
            if service.name.removeprefix("diredi.v1.") not in ELSEWHERE
            for name in dir(service.servicer)
            if name[0].isupper()
        }
        assert set(wanted) == served, "each call of the cloud has its rule here"
        found = {}
        for call_name, (request, allowed) in wanted.items():
            found[call_name] = {
                name for name in sorted(EVERYBODY) if await passes(world, name, call_name, request, allowed)
            }
        assert found == {call_name: allowed for call_name, (_, allowed) in wanted.items()}


async def passes(world: World, name: str, call_name: str, request: Message, allowed: set[str]) -> bool:
    if isinstance(request, sites_pb2.SubmitGapRequest):
        request = sites_pb2.SubmitGapRequest(manifest=request.manifest)
        sign_message(request.manifest, world.credentials(name))
    method = f"/diredi.v1.{call_name}"
    channel = world.channel(name)
    with suppress(InvalidInput, WrongState, NoRoom):  # of a later check than who it is
        try:
            if call_name.startswith(STREAMS):
                stream = channel.unary_stream(method, type(request).SerializeToString, bytes)(request)
                await anext(read_messages(stream, PATIENCE_S), None)
            else:
                await ask(channel.unary_unary(method, type(request).SerializeToString, bytes), request)
        except Refused as refused:
            if needed := next((text for people, text in NEEDED.items() if people == frozenset(allowed)), ""):
                assert needed in str(refused)
            return False
        except NotFound:
            return call_name != "BlobService/GetBlob"
    return True


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
