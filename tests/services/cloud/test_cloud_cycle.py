"""Cycles over real gRPC, with the site and the devices driven by the test."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import pytest

from cloud_server.app import Cloud
from cloud_server.context import utc_now
from diredi.errors import InvalidInput, NotFound, WrongState
from diredi.rpc.v1 import cycles_pb2, fleet_pb2, fleet_pb2_grpc, registry_pb2, sites_pb2
from tests.services.cloud.world import World, ask, state_of, states_of
from tests.support.waiting import PATIENCE_S, until

MAIN_LINE = [
    "REQUESTED", "OFFERED", "EXTRACTING", "UPLOADED", "APPLIED", "GATED", "REDISTILLED", "CANARY", "RELEASED",
]  # fmt: skip


async def test_a_cycle_goes_from_request_to_release(world: World) -> None:
    async with world.cloud():
        site, operator, camera, other = world.site(), world.operator(), world.device(), world.device("cam-2")
        await camera.register()
        await other.register()
        task = await site.extracting(operator)
        assert task.approved
        assert await site.fetch(task.coreset)
        await site.extract(task)
        canary = await camera.until(2)
        assert (await other.until(1)).version == 1
        validate = await site.next_task(sites_pb2.TASK_KIND_VALIDATE)
        assert validate.student.onnx.digest == canary.onnx.digest
        await site.validate(task.cycle_id)
        await camera.report(2)
        ended = await operator.until(task.cycle_id, "RELEASED")
        assert states_of(ended) == MAIN_LINE
        assert [t.actor for t in ended.history][:4] == ["operator/alice", *["site/site-1"] * 3]
        assert ended.history[-1].actor == "device/site-1/cam-1"
        assert ended.history[-1].metrics["new_classes_ap50"]["forklift"] == pytest.approx(0.7)
        release = await other.until(2)
        assert release.student_id == ended.updated_student_id
        assert [c.name for c in release.labels.classes] == ["car", "person", "forklift"]


@pytest.mark.slow
async def test_the_next_cycle_stands_on_the_release_of_the_last(world: World) -> None:
    world.settings["canary_devices"] = 0
    async with world.cloud():
        site, operator = world.site(), world.operator()
        working = asyncio.create_task(site.work())
        await operator.until_known("site-1")
        first = await operator.until((await operator.start()).id, "RELEASED")
        second = await operator.until((await operator.start(request_id="r2")).id, "RELEASED")
        working.cancel()
        assert state_of(second) == "RELEASED"
        assert second.base_tutor_id == first.updated_tutor_id
        assert second.release_version == 3
        models = (await ask(operator.registry.ListModels, registry_pb2.ListModelsRequest())).models
        assert len(models) == 6
        assert {m.parent_id for m in models if m.cycle_id == second.id} == {
            first.updated_tutor_id, first.updated_student_id,
        }  # fmt: skip


async def test_a_site_that_asks_gets_the_task_twice_and_works_after_its_own_yes(world: World) -> None:
    async with world.cloud():
        site, operator = world.site(auto_approve=False), world.operator()
        tasks = site.tasks()
        first = asyncio.create_task(anext(tasks))
        await operator.until_known("site-1")
        cycle = await operator.start()
        assert not (await asyncio.wait_for(first, PATIENCE_S)).task.approved
        with pytest.raises(WrongState, match="not approved"):
            await ask(
                site.stub.ReportProgress, sites_pb2.ReportProgressRequest(cycle_id=cycle.id, progress={"step": "x"})
            )
        await ask(site.cycles.ApproveCycle, cycles_pb2.ApproveCycleRequest(id=cycle.id))
        assert (await asyncio.wait_for(anext(tasks), PATIENCE_S)).task.approved
        await site.begin(cycle.id)
        assert state_of(await operator.get(cycle.id)) == "EXTRACTING"
        await tasks.aclose()


async def test_a_declined_cycle_ends_and_tells_whoever_works_on_it(world: World) -> None:
    async with world.cloud():
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        await ask(site.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=task.cycle_id, reason="not this week"))
        ended = await operator.until(task.cycle_id)
        assert (state_of(ended), ended.history[-1].reason) == ("DECLINED", "not this week")
        assert (await site.next_task(sites_pb2.TASK_KIND_CANCEL)).cycle_id == task.cycle_id
        with pytest.raises(WrongState):
            await ask(site.stub.ReportProgress, sites_pb2.ReportProgressRequest(cycle_id=task.cycle_id))


async def test_a_gap_that_harms_is_rejected_with_the_metrics_that_decided(world: World) -> None:
    async with world.cloud():
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        await site.extract(task, change=-0.2)
        ended = await operator.until(task.cycle_id, "REJECTED")
        assert states_of(ended)[-2:] == ["APPLIED", "REJECTED"]
        metrics = ended.history[-1].metrics
        assert metrics["before"]["map50"] - metrics["after"]["map50"] == pytest.approx(0.2)
        assert "may fall by" in ended.history[-1].reason
        current = (await anext(world.device().releases())).release
        assert current.version == 1


async def test_a_student_that_harms_is_rejected_though_its_tutor_was_good(world: World) -> None:
    async with world.cloud():
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        labels = await site.propose(task.cycle_id, "forklift")
        manifest = await site.manifest(task, labels, change=0.1, student=False)
        manifest.student_gap.CopyFrom(await site.gap_of(task.student, labels, change=-0.3))
        await site.submit(manifest)
        ended = await operator.until(task.cycle_id, "REJECTED")
        assert states_of(ended)[-2:] == ["GATED", "REJECTED"]


async def test_without_a_student_gap_the_student_comes_from_the_tutor(world: World) -> None:
    world.settings["canary_devices"] = 0
    async with world.cloud():
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        labels = await site.propose(task.cycle_id, "forklift")
        await site.submit(await site.manifest(task, labels, student=False))
        assert state_of(await operator.until(task.cycle_id, "CANARY")) == "CANARY"
        await site.validate(task.cycle_id)
        assert state_of(await operator.until(task.cycle_id)) == "RELEASED"


@pytest.mark.slow
@pytest.mark.parametrize("why", ["canary fails", "site is worse", "site cannot"])
async def test_a_release_is_rolled_back_and_its_canaries_get_the_bytes_of_before(world: World, why: str) -> None:
    async with world.cloud():
        site, operator, camera = world.site(), world.operator(), world.device()
        await camera.register()
        first = await camera.until(1)
        task = await site.extracting(operator)
        await site.extract(task)
        releases = camera.releases()
        async with asyncio.timeout(PATIENCE_S):
            while (await anext(releases)).release.version != 2:
                pass
        if why == "canary fails":
            await camera.report(2, fleet_pb2.INSTALL_OUTCOME_FAILED, "the file cannot be opened")
        elif why == "site is worse":
            await site.validate(task.cycle_id, map50=0.3)
        else:
            request = sites_pb2.FailTaskRequest(task_id=f"{task.cycle_id}/validate", reason="no pictures left")
            await ask(site.stub.FailTask, request)
        ended = await operator.until(task.cycle_id)
        assert states_of(ended)[-2:] == ["CANARY", "ROLLED_BACK"]
        following = (await asyncio.wait_for(anext(releases), PATIENCE_S)).release
        # A device refuses to go back, so who may run the withdrawn release gets the old bytes as a new one.
        assert following.version == (1 if why == "canary fails" else 3)
        assert following.onnx == first.onnx
        await releases.aclose()
        # The number of a withdrawn release is not used again.
        await site.extract(await site.extracting(operator, "r2"))
        candidate = await operator.until((await operator.start(request_id="r2")).id, "CANARY")
        assert candidate.release_version == max(following.version, 2) + 1


async def test_a_device_of_the_same_name_at_another_site_is_another_device(world: World) -> None:
    async with world.cloud():
        site, operator, camera = world.site(), world.operator(), world.device()
        twin = world.device("cam-1", "site-2", identity="twin")
        await camera.register()
        await twin.register()
        task = await site.extracting(operator)
        await site.extract(task)
        assert (await camera.until(2)).version == 2
        assert (await twin.until(1)).version == 1
        await twin.report(2)
        await site.validate(task.cycle_id)
        assert state_of(await operator.get(task.cycle_id)) == "CANARY"  # still waits for its own canary
        await camera.report(2)
        assert state_of(await operator.until(task.cycle_id)) == "RELEASED"


@pytest.mark.parametrize("possession", [b"", bytes(32)])
async def test_a_canary_that_never_fetched_the_file_is_not_believed(world: World, possession: bytes) -> None:
    async with world.cloud():
        site, operator, camera = world.site(), world.operator(), world.device()
        await camera.register()
        task = await site.extracting(operator)
        await site.extract(task)
        await camera.until(2)
        await site.validate(task.cycle_id)
        bare_word = fleet_pb2.ReportInstallRequest(
            device="cam-1", release_version=2, outcome=fleet_pb2.INSTALL_OUTCOME_INSTALLED, possession=possession
        )
        with pytest.raises(InvalidInput, match="does not prove that it has the file of release 2"):
            await ask(camera.stub.ReportInstall, bare_word)
        assert state_of(await operator.get(task.cycle_id)) == "CANARY"
        await camera.report(2)
        assert state_of(await operator.until(task.cycle_id)) == "RELEASED"


async def test_a_canary_that_says_nothing_is_not_waited_for_for_ever(world: World) -> None:
    world.settings["canary_deadline_s"] = 1.0
    async with world.cloud():
        site, operator, camera = world.site(), world.operator(), world.device()
        await camera.register()
        task = await site.extracting(operator)
        await site.extract(task)
        await operator.until(task.cycle_id, "CANARY")
        await site.validate(task.cycle_id)
        ended = await operator.until(task.cycle_id)
        assert state_of(ended) == "ROLLED_BACK"
        assert "site-1/cam-1 said nothing" in ended.history[-1].reason


async def test_a_canary_whose_site_holds_the_release_is_no_failure_and_the_validation_decides(world: World) -> None:
    world.settings["canary_deadline_s"] = 4.0
    async with world.cloud():
        site, operator, camera = world.site(), world.operator(), world.device()
        await camera.register()
        task = await site.extracting(operator)
        await site.extract(task)
        await operator.until(task.cycle_id, "CANARY")
        await site.validate(task.cycle_id)
        held = fleet_pb2.HeartbeatRequest(device="cam-1", release_version=1, update_wait=fleet_pb2.UPDATE_WAIT_HELD)
        await ask(camera.stub.Heartbeat, held)
        fleet = fleet_pb2_grpc.FleetServiceStub(world.channel("alice"))
        (device,) = (await ask(fleet.ListDevices, fleet_pb2.ListDevicesRequest())).devices
        assert device.update_wait == fleet_pb2.UPDATE_WAIT_HELD
        assert state_of(await operator.until(task.cycle_id)) == "RELEASED"


async def test_a_site_that_makes_no_progress_is_not_waited_for_for_ever(world: World) -> None:
    world.settings["progress_deadline_s"] = 2.0
    async with world.cloud():
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        ended = await operator.until(task.cycle_id)
        assert (state_of(ended), states_of(ended)[-2]) == ("FAILED", "EXTRACTING")
        assert "no progress" in ended.history[-1].reason


async def test_a_site_that_goes_away_finds_its_cycle_open_when_it_comes_back(world: World) -> None:
    async with world.cloud():
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)  # its stream has ended with this
        (known,) = await operator.known_sites()
        assert (known.online, known.cycle_id) == (False, task.cycle_id)
        again = await site.next_task(sites_pb2.TASK_KIND_EXTRACT)
        assert again.id == task.id
        assert state_of(await operator.get(task.cycle_id)) == "EXTRACTING"


async def test_a_cycle_starts_only_where_it_can(world: World) -> None:
    async with world.cloud():
        site, operator = world.site(), world.operator()
        with pytest.raises(NotFound, match="site-1"):
            await operator.start()
        task = await site.extracting(operator)
        assert (await operator.start()).id == task.cycle_id
        with pytest.raises(WrongState, match="under way"):
            await operator.start(request_id="r2")


async def test_before_the_first_release_the_cloud_answers_and_takes_no_cycles(empty_world: World) -> None:
    from diredi.rpc.client import is_serving

    world = empty_world
    world.settings["presumed"] = "scenes:presumed"  # takes a while to generate
    cloud = await world.start()
    try:
        channel = world.channel("alice")
        assert await is_serving(channel)
        assert not await is_serving(channel, "diredi.v1.CycleService")
        assert not (await anext(world.device().releases())).HasField("release")
        waiting = asyncio.create_task(world.site().next_task())
        operator = world.operator()
        await operator.until_known("site-1")
        with pytest.raises(WrongState, match="no release yet"):
            await operator.start()
        waiting.cancel()
    finally:
        await cloud.stop(0)


async def test_reflection_and_health_are_there_for_standard_tools(world: World) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with world.cloud():
        stub = reflection_pb2_grpc.ServerReflectionStub(world.channel("alice"))
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await call.read()
        assert answer is not grpc.aio.EOF
        names = {service.name for service in answer.list_services_response.service}
        assert {f"diredi.v1.{n}Service" for n in ("Registry", "Blob", "Cycle", "Site", "Fleet")} <= names


async def test_a_clock_that_jumps_ends_no_cycle_and_hides_no_task(world: World) -> None:
    world.settings["canary_deadline_s"] = 1.0  # so that deadlines are looked at four times a second
    async with world.cloud() as cloud:
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        for days in (8, -365):
            cloud.context.now = lambda days=days: utc_now() + timedelta(days=days)
            before = await looks_at_deadlines(cloud)
            await until(partial(looked_since, cloud, before))
            assert state_of(await operator.get(task.cycle_id)) == "EXTRACTING"
        await ask(site.stub.FailTask, sites_pb2.FailTaskRequest(task_id=task.id, reason="no"))
        again = await site.extracting(operator, "r2")
        assert again.cycle_id != task.cycle_id


async def looks_at_deadlines(cloud: Cloud) -> dict[str, Any] | None:
    return await cloud.context.read(lambda r: r.facts.get("waits"))


async def looked_since(cloud: Cloud, before: dict[str, Any] | None) -> bool:
    return await looks_at_deadlines(cloud) != before
