"""A release for whom it is for: three sites with devices, of which some learn for themselves and some for all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from diredi.errors import InvalidInput, NotFound, Refused, WrongState
from diredi.rpc import blobs, convert
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import cycles_pb2, registry_pb2, registry_pb2_grpc, sites_pb2
from diredi.store.weights import WeightMap
from tests.services.cloud.quick_jobs import toy
from tests.services.cloud.test_cloud_several_sites import diredi
from tests.services.cloud.world import DeviceSide, Operator, SiteSide, World, ask, row_of, state_of

pytestmark = pytest.mark.slow

FIRST = ["car", "person"]
SITES = ("site-1", "site-2", "site-3")


@asynccontextmanager
async def three_sites(world: World) -> AsyncIterator[tuple[Operator, list[SiteSide], list[DeviceSide]]]:
    """Sites that the cloud knows, with a device each."""
    async with world.cloud():
        operator, sites = world.operator(), [world.site(name) for name in SITES]
        for site in sites:
            waiting = asyncio.create_task(site.next_task())
            await operator.until_known(site.name)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        devices = [world.device(), world.device("cam-1", "site-2", identity="twin"), world.device("yard", "site-3")]
        for device in devices:
            await device.register()
        yield operator, sites, devices


async def whole_cycle(
    operator: Operator, site: SiteSide, device: DeviceSide | None, *names: str, request_id: str, scope: str = ""
) -> Any:
    """A cycle of one site to its end; the device is its canary, if one of the site's is."""
    cycle = await operator.start(site.name, request_id=request_id, scope=scope)
    await site.extract(await site.next_task(sites_pb2.TASK_KIND_EXTRACT), *names)
    candidate = await operator.until(cycle.id, "CANARY")
    assert state_of(candidate) == "CANARY", candidate.history[-1].reason
    await site.validate(cycle.id)
    if device is not None:
        await device.until(candidate.release_version)
        await device.report(candidate.release_version)
    ended = await operator.until(cycle.id)
    assert state_of(ended) == "RELEASED", ended.history[-1].reason
    return ended


async def running(device: DeviceSide) -> Any:
    """The release that the cloud has for a device now."""
    return (await anext(device.releases())).release


async def start_rebase(operator: Operator, scope: str, request_id: str, **recipe: Any) -> Any:
    request = cycles_pb2.RebaseReleaseRequest(scope=scope, request_id=request_id, recipe=convert.struct_to(recipe))
    return (await ask(operator.cycles.RebaseRelease, request)).cycle


async def rebase_of(operator: Operator, cycle: Any) -> Any:
    """The cycle that the cloud starts by itself to rebase the release of a cycle."""
    async with asyncio.timeout(operator.patience_s):
        while True:
            listed = await ask(operator.cycles.ListCycles, cycles_pb2.ListCyclesRequest())
            for found in listed.cycles:
                if found.rebases == cycle.release_version:
                    return found
            await asyncio.sleep(0.05)


def names_of(labels: Any) -> list[str]:
    return [item.name for item in labels.classes]


async def models_of(side: SiteSide) -> dict[str, list[str]]:
    """What a site sees in the registry: classes by model."""
    stub = registry_pb2_grpc.RegistryServiceStub(side.world.channel(side.name))
    answer = await ask(stub.ListModels, registry_pb2.ListModelsRequest())
    return {model.id: names_of(model.labels) for model in answer.models}


async def test_the_release_of_a_site_is_for_its_devices_and_a_fleet_release_does_not_cost_it_its_class(
    world: World,
) -> None:
    async with three_sites(world) as (operator, (one, two, _), (camera, twin, yard)):
        own = await whole_cycle(operator, one, camera, "crane", request_id="own", scope="site")
        assert own.scope == "site:site-1"
        assert [(await running(device)).version for device in (camera, twin, yard)] == [2, 1, 1]
        fleet = await whole_cycle(operator, two, twin, "truck", request_id="fleet")
        releases = [await running(device) for device in (camera, twin, yard)]
        assert [(r.version, r.scope) for r in releases] == [(2, "site:site-1"), (3, "fleet"), (3, "fleet")]
        assert [names_of(r.labels) for r in releases] == [[*FIRST, "crane"], [*FIRST, "truck"], [*FIRST, "truck"]]
        devices = await operator.devices()
        assert devices["yard"].scope == ""  # it has reported no release yet

        rebase = await rebase_of(operator, own)
        assert rebase.id in (await operator.known_device("site-1")).lacks
        assert (rebase.base_tutor_id, rebase.base_student_id) == (fleet.updated_tutor_id, fleet.updated_student_id)
        assert [(part.site, part.site_before.map50) for part in rebase.sites] == [("site-1", 0.7)]
        await operator.until(rebase.id, "CANARY")
        await one.validate(rebase.id)
        assert names_of((await camera.until(4)).labels) == [*FIRST, "truck", "crane"]  # both, by name
        await camera.report(4)
        ended = await operator.until(rebase.id)
        assert (state_of(ended), ended.scope) == ("RELEASED", "site:site-1"), ended.history[-1].reason
        assert [(await running(device)).version for device in (camera, twin, yard)] == [4, 3, 3]
        assert (await operator.known_device("site-1")).lacks == ""
        with pytest.raises(NotFound):
            await ask(two.cycles.GetCycle, cycles_pb2.GetCycleRequest(id=rebase.id))
        with pytest.raises(WrongState, match="nothing to rebase"):
            await start_rebase(operator, "site:site-1", "again")

        tutor = await operator.model(ended.updated_tutor_id)
        rows = WeightMap.load(await operator.fetch(tutor.weights))[toy.ROWS][2:, 0]
        assert rows.tolist() == [row_of("truck"), row_of("crane")]
        again = await operator.start("site-1", request_id="more", scope="site")
        assert (again.base_tutor_id, again.base_student_id) == (ended.updated_tutor_id, ended.updated_student_id)


async def test_a_first_release_of_a_site_is_not_lost_by_a_fleet_release_that_comes_before_it(world: World) -> None:
    async with three_sites(world) as (operator, (one, two, _), (camera, twin, _)):
        own = await operator.start(one.name, request_id="own", scope="site")
        task = await one.next_task(sites_pb2.TASK_KIND_EXTRACT)
        fleet = await whole_cycle(operator, two, twin, "truck", request_id="fleet")
        await one.extract(task, "crane")
        candidate = await operator.until(own.id, "CANARY")
        await one.validate(own.id)
        await camera.until(candidate.release_version)
        await camera.report(candidate.release_version)
        own = await operator.until(own.id)
        assert (state_of(own), own.base_student_id) == ("RELEASED", fleet.base_student_id)
        assert f"release {own.release_version} is not on release {fleet.release_version} yet" in own.history[-1].reason
        rebase = await rebase_of(operator, own)
        candidate = await operator.until(rebase.id, "CANARY")
        await one.validate(rebase.id)
        assert names_of((await camera.until(candidate.release_version)).labels) == [*FIRST, "truck", "crane"]
        await camera.report(candidate.release_version)
        assert state_of(await operator.until(rebase.id)) == "RELEASED"


async def test_a_rebase_that_costs_the_site_leaves_its_devices_on_their_release_and_may_be_tried_again(
    world: World,
) -> None:
    async with three_sites(world) as (operator, (one, two, _), (camera, twin, _)):
        own = await whole_cycle(operator, one, camera, "crane", request_id="own", scope="site")
        await whole_cycle(operator, two, twin, "truck", request_id="fleet")
        first = await rebase_of(operator, own)
        await operator.until(first.id, "CANARY")
        assert (await camera.until(4)).version == 4
        await one.validate(first.id, map50=0.6)
        ended = await operator.until(first.id)
        assert (state_of(ended), ended.history[-1].actor) == ("ROLLED_BACK", "site/site-1")
        again = await camera.until(5)
        assert (again.scope, again.student_id) == ("site:site-1", own.updated_student_id)
        assert "ROLLED_BACK" in (await operator.known_device("site-1")).lacks
        for actor in (one, two):
            with pytest.raises(Refused):
                await ask(
                    actor.cycles.RebaseRelease, cycles_pb2.RebaseReleaseRequest(scope="site:site-1", request_id="x")
                )
        for scope, error in (("fleet", InvalidInput), ("site", InvalidInput), ("site:site-2", NotFound)):
            with pytest.raises(error):
                await start_rebase(operator, scope, "wrong")
        with pytest.raises(InvalidInput, match="max_harm"):
            await start_rebase(operator, "site:site-1", "wrong", max_harm=7)
        second = await start_rebase(operator, "site:site-1", "again", max_harm=0.2)
        assert (await start_rebase(operator, "site:site-1", "again")).id == second.id
        assert second.id != first.id
        candidate = await operator.until(second.id, "CANARY")
        await one.validate(second.id, map50=0.6)
        assert (await camera.until(candidate.release_version)).scope == "site:site-1"
        await camera.report(candidate.release_version)
        last = await operator.until(second.id)
        assert state_of(last) == "RELEASED", last.history[-1].reason


async def test_a_site_with_its_own_release_takes_part_in_a_fleet_cycle_without_canaries(world: World) -> None:
    async with three_sites(world) as (operator, (one, *_), (camera, twin, _)):
        await whole_cycle(operator, one, camera, "crane", request_id="own", scope="site")
        ended = await whole_cycle(operator, one, None, "truck", request_id="fleet")
        assert [(await running(device)).version for device in (camera, twin)] == [2, ended.release_version]


async def test_outside_of_a_scope_nothing_of_it_is_there(world: World) -> None:
    """By certificate: another site, its device, and a device that knows the number and the digests."""
    async with three_sites(world) as (operator, (one, two, _), (camera, twin, _)):
        own = await whole_cycle(operator, one, camera, "crane", request_id="own", scope="site")
        progress = cycles_pb2.Progress(step="tutor-2")
        manifest = cycles_pb2.GapManifest()
        manifest.CopyFrom(own.gap)
        registry = registry_pb2_grpc.RegistryServiceStub(world.channel("site-2"))

        def calls(cycle_id: str, model_id: str) -> list[tuple[Any, Any]]:
            task = f"{cycle_id}/validate"
            manifest.cycle_id = cycle_id
            return [
                (two.cycles.GetCycle, cycles_pb2.GetCycleRequest(id=cycle_id)),
                (two.cycles.ApproveCycle, cycles_pb2.ApproveCycleRequest(id=cycle_id)),
                (two.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=cycle_id)),
                (two.stub.ReportProgress, sites_pb2.ReportProgressRequest(cycle_id=cycle_id, progress=progress)),
                (two.stub.ProposeClasses, sites_pb2.ProposeClassesRequest(cycle_id=cycle_id, names=["x"])),
                (two.stub.SubmitGap, two.signed(manifest)),
                (two.stub.SubmitValidation, sites_pb2.SubmitValidationRequest(cycle_id=cycle_id, after=own.site_after)),
                (two.stub.FailTask, sites_pb2.FailTaskRequest(task_id=task)),
                (registry.GetModel, registry_pb2.GetModelRequest(id=model_id)),
            ]

        async def refusals(cycle_id: str, model_id: str) -> list[str]:
            said = []
            for method, request in calls(cycle_id, model_id):
                with pytest.raises(NotFound) as caught:
                    await ask(method, request)
                said.append(str(caught.value).replace(cycle_id, "CYCLE").replace(model_id, "MODEL"))
            return said

        strange = await refusals("0123456789ab", "sha256:" + "7" * 64)
        assert await refusals(own.id, own.updated_tutor_id) == strange  # as if it were not there
        with pytest.raises(NotFound):
            await anext(read_messages(two.cycles.WatchCycle(cycles_pb2.WatchCycleRequest(id=own.id)), 20))
        assert list((await ask(two.cycles.ListCycles, cycles_pb2.ListCyclesRequest())).cycles) == []

        student = await operator.model(own.updated_student_id)
        tutor = await operator.model(own.updated_tutor_id)
        refs = [tutor.weights, student.weights, student.onnx, own.gap.tutor_gap.blob, own.gap.student_gap.blob]
        for ref in refs:
            for side in (two, twin):
                with pytest.raises(NotFound):
                    await blobs.download(side.blobs, convert.blob_from(ref), world.folder / "taken")
        for ref in (student.onnx, student.weights):  # what its devices run
            assert await one.fetch(ref)
        with pytest.raises(NotFound):  # a tutor is for a task
            await one.fetch(tutor.weights)
        assert await blobs.download(camera.blobs, convert.blob_from(student.onnx), world.folder / "onnx")
        for version in (own.release_version, 99):
            with pytest.raises(NotFound, match=f"no release {version}"):
                await twin.report(version)

        assert {tuple(names) for names in (await models_of(two)).values()} == {tuple(FIRST)}
        assert set(await models_of(one)) > set(await models_of(two))
        await operator.start("site-2", request_id="fleet")
        task = await two.next_task(sites_pb2.TASK_KIND_EXTRACT)
        assert "crane" not in str(task)
        assert (await two.propose(task.cycle_id, "truck")).names == (*FIRST, "truck")  # the same id, for another class


async def test_a_group_learns_together_and_its_release_reaches_its_sites(world: World) -> None:
    async with three_sites(world) as (operator, (one, two, three), (camera, twin, yard)):

        def group(*sites: str, name: str = "north") -> Any:
            return sites_pb2.SetGroupRequest(group=sites_pb2.Group(name=name, sites=sites))

        with pytest.raises(NotFound, match="site-9"):
            await ask(operator.sites.SetGroup, group("site-9"))
        for method, request in [
            (one.stub.SetGroup, group("site-1")),
            (one.stub.ListGroups, sites_pb2.ListGroupsRequest()),
            (one.stub.RemoveGroup, sites_pb2.RemoveGroupRequest(name="north")),
        ]:
            with pytest.raises(Refused):
                await ask(method, request)
        await ask(operator.sites.SetGroup, group("site-1", "site-2"))
        listed = (await ask(operator.sites.ListGroups, sites_pb2.ListGroupsRequest())).groups
        assert [(item.name, list(item.sites)) for item in listed] == [("north", ["site-1", "site-2"])]
        with pytest.raises(WrongState, match="north"):
            await ask(operator.sites.SetGroup, group("site-2", name="south"))
        with pytest.raises(Refused, match="site-3"):
            await operator.start("site-1", "site-3", scope="group:north")
        with pytest.raises(InvalidInput, match="south"):
            await operator.start("site-1", scope="group:south")

        learned = await whole_cycle(operator, one, camera, "crane", request_id="north", scope="group:north")
        assert [(await running(device)).version for device in (camera, twin, yard)] == [2, 2, 1]
        assert learned.updated_tutor_id in await models_of(two)
        assert learned.updated_tutor_id not in await models_of(three)
        with pytest.raises(NotFound):
            await three.fetch((await operator.model(learned.updated_tutor_id)).weights)

        own = await operator.start("site-2", request_id="own", scope="site")
        assert own.base_tutor_id == learned.updated_tutor_id  # what its devices run
        await ask(two.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=own.id))
        await operator.start("site-2", request_id="more", scope="group:north")
        with pytest.raises(WrongState, match="under way"):
            await ask(operator.sites.SetGroup, group("site-1"))
        with pytest.raises(WrongState, match="under way"):
            await ask(operator.sites.RemoveGroup, sites_pb2.RemoveGroupRequest(name="north"))
        cycle_id = (await two.next_task(sites_pb2.TASK_KIND_EXTRACT)).cycle_id
        await ask(two.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=cycle_id))

        left = await ask(operator.sites.SetGroup, group("site-1"))
        assert list(left.changes) == [
            "the devices of site-2 go from release 2 (group:north) to release 1 (fleet), which does not know crane"
        ]
        assert [(await running(device)).version for device in (camera, twin)] == [2, 1]
        with pytest.raises(NotFound):
            await two.fetch((await operator.model(learned.updated_tutor_id)).weights)
        removed = await ask(operator.sites.RemoveGroup, sites_pb2.RemoveGroupRequest(name="north"))
        assert [change.split(" go ")[0] for change in removed.changes] == ["the devices of site-1"]
        assert (await running(camera)).version == 1
        with pytest.raises(NotFound, match="north"):
            await ask(operator.sites.RemoveGroup, sites_pb2.RemoveGroupRequest(name="north"))


async def test_a_scope_that_is_none_is_refused_and_starts_nothing(world: World) -> None:
    async with three_sites(world) as (operator, *_):
        for scope, sites in (("planet", ["site-1"]), ("site", ["site-1", "site-2"]), ("site:site-2", ["site-1"])):
            with pytest.raises(InvalidInput, match="scope"):
                await operator.start(*sites, scope=scope)
        cycle = await operator.start("site-1", scope="site")
        assert (await operator.start("site-1", scope="site")).id == cycle.id
        with pytest.raises(InvalidInput, match="request id"):
            await operator.start("site-1", scope="fleet")


async def test_the_command_line_sets_groups_and_shows_scopes(world: World) -> None:
    async with three_sites(world) as (operator, (one, two, _), (camera, twin, _)):

        async def shown(*arguments: str) -> str:
            return (await diredi(world, *arguments))[0]

        def line(text: str, *words: str) -> str:
            return next((row for row in text.splitlines() if all(word in row for word in words)), "")

        assert "site-1, site-2" in await shown("group", "set", "north", "--site", "site-1", "--site", "site-2")
        assert "site-1, site-2" in line(await shown("group", "list"), "north")
        assert json.loads(await shown("group", "list", "--json")) == [{"name": "north", "sites": ["site-1", "site-2"]}]
        assert "north" in line(await shown("site", "list"), "site-2")

        started = json.loads(await shown("cycle", "start", "--site", "site-1", "--scope", "group:north", "--json"))
        assert started["scope"] == "group:north"
        await ask(one.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=started["id"]))
        own = await whole_cycle(operator, one, camera, "crane", request_id="own", scope="site")
        assert "site:site-1" in line(await shown("cycle", "list"), own.id)
        await whole_cycle(operator, two, twin, "truck", request_id="fleet")
        rebase = await rebase_of(operator, own)
        told = await shown("cycle", "show", rebase.id)
        assert "release 2" in line(told, "rebases")
        assert "70.0" in line(told, "site-1", "UPLOADED")  # mAP50 before
        devices = await shown("device", "list")
        assert "site:site-1" in line(devices, "cam-1", "site-1") and rebase.id in devices
        models = await shown("model", "list")
        assert "site:site-1" in line(models, own.id, "student") and "fleet" in line(models, "first", "tutor")
        assert "site:site-1" in await shown("model", "show", own.updated_student_id)
        listed, _ = await diredi(world, "model", "list", identity="site-2")
        assert "fleet" in listed and "site:site-1" not in listed

        await operator.until(rebase.id, "CANARY")
        await one.validate(rebase.id, map50=0.3)
        await operator.until(rebase.id)
        _, noted = await diredi(world, "cycle", "list")
        assert "`diredi cycle rebase --scope site:site-1` tries again" in noted
        again = await shown("cycle", "rebase", "--scope", "site:site-1", "-o", "max_harm=0.5", "--json")
        assert json.loads(again)["rebases"] == 5, "the second release of the site, whose bytes are those of the first"
        _, noted = await diredi(world, "group", "remove", "north")
        assert "north is removed" in noted
        assert json.loads(await shown("group", "list", "--json")) == []
