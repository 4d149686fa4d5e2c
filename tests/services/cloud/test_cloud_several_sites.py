"""One cycle of several sites: each says yes or no for itself, and what those who stay learn ends in one release."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from diredi.errors import InvalidInput, NotFound, WrongState
from diredi.rpc.v1 import cycles_pb2, sites_pb2
from diredi.store.weights import WeightMap
from tests.services.cloud.quick_jobs import toy
from tests.services.cloud.test_cloud_restarts import ROOT, Process
from tests.services.cloud.world import STYLE, Operator, SiteSide, World, ask, metrics, row_of, state_of, states_of

pytestmark = pytest.mark.slow

BOTH = ("site-1", "site-2")


@asynccontextmanager
async def two_sites(world: World, **second: bool) -> AsyncIterator[tuple[Operator, SiteSide, SiteSide]]:
    """Sites that the cloud knows."""
    async with world.cloud():
        yield await known(world, **second)


async def known(world: World, **second: bool) -> tuple[Operator, SiteSide, SiteSide]:
    operator, one, two = world.operator(), world.site("site-1"), world.site("site-2", **second)
    for site in (one, two):
        waiting = asyncio.create_task(site.next_task())
        await operator.until_known(site.name)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    return operator, one, two


def standing(cycle: cycles_pb2.Cycle) -> dict[str, str]:
    return {part.site: state_of(part) for part in cycle.sites}


async def test_two_sites_with_two_new_classes_end_in_one_tutor_that_has_both(world: World) -> None:
    async with two_sites(world) as (operator, one, two):
        cycle = await operator.start(*BOTH)
        assert cycle.recipe["router"] is False, "a device would compute the branch of each site"
        tasks = [await site.next_task(sites_pb2.TASK_KIND_EXTRACT) for site in (one, two)]
        labels = [await site.propose(cycle.id, name) for site, name in ((one, "forklift"), (two, "crane"))]
        assert [space.names[2:] for space in labels] == [("forklift",), ("forklift", "crane")]
        assert (await one.propose(cycle.id, "crane")).names == labels[1].names  # one name, one id, whoever asks
        await one.begin(cycle.id)
        await one.submit(await one.manifest(tasks[0], labels[0], taught=["forklift"]))
        waiting = await operator.get(cycle.id)
        assert (state_of(waiting), standing(waiting)) == ("EXTRACTING", {"site-1": "UPLOADED", "site-2": "OFFERED"})
        await two.extract(tasks[1], "crane")
        candidate = await operator.until(cycle.id, "CANARY")
        assert state_of(candidate) == "CANARY", candidate.history[-1].reason
        tutor = await operator.model(candidate.updated_tutor_id)
        assert [item.name for item in tutor.labels.classes] == ["car", "person", "forklift", "crane"]
        rows = WeightMap.load(await operator.fetch(tutor.weights))[toy.ROWS][2:, 0]
        assert rows.tolist() == [row_of("forklift"), row_of("crane")]  # each from the site that has seen it
        await one.validate(cycle.id)
        assert state_of(await operator.get(cycle.id)) == "CANARY"  # the other has not validated yet
        await two.validate(cycle.id, map50=0.6)
        ended = await operator.until(cycle.id, "RELEASED")
        assert {part.site: part.site_after.map50 for part in ended.sites} == {"site-1": 0.7, "site-2": 0.6}
        assert ended.history[-1].metrics["sites"]["site-2"]["after"]["map50"] == pytest.approx(0.6)
        assert (ended.site, ended.gap.tutor_gap) == ("site-1", ended.sites[0].gap.tutor_gap)  # for older clients


async def test_a_site_that_declines_drops_out_with_its_reason_and_the_cycle_goes_on(world: World) -> None:
    world.settings["canary_devices"] = 0
    async with two_sites(world, auto_approve=False) as (operator, one, two):
        cycle = await operator.start(*BOTH, router=True)
        assert cycle.recipe["router"] is True
        await two.next_task(sites_pb2.TASK_KIND_EXTRACT)
        await one.extract(await one.next_task(sites_pb2.TASK_KIND_EXTRACT))
        assert state_of(await operator.get(cycle.id)) == "EXTRACTING"  # waits for the other's word
        await ask(two.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=cycle.id, reason="not this week"))
        assert state_of(await operator.until(cycle.id, "CANARY")) == "CANARY"
        assert (await two.next_task()).kind == sites_pb2.TASK_KIND_CANCEL
        for too_late in (two.begin(cycle.id), two.propose(cycle.id, "crane"), two.validate(cycle.id)):
            with pytest.raises(WrongState, match="DECLINED"):
                await too_late
        await one.validate(cycle.id)
        ended = await operator.until(cycle.id)
        assert (state_of(ended), standing(ended)) == ("RELEASED", {"site-1": "UPLOADED", "site-2": "DECLINED"})
        assert ended.sites[1].reason == "not this week"
        assert ("site/site-2", "not this week") in [(step.actor, step.reason) for step in ended.history]


async def test_a_site_that_dropped_out_is_free_for_another_cycle(world: World) -> None:
    async with two_sites(world) as (operator, _, two):
        cycle = await operator.start(*BOTH)
        with pytest.raises(WrongState, match="under way"):
            await operator.start("site-2", request_id="r2")
        await two.next_task(sites_pb2.TASK_KIND_EXTRACT)
        await ask(two.stub.FailTask, sites_pb2.FailTaskRequest(task_id=f"{cycle.id}/extract", reason="no room"))
        assert standing(await operator.get(cycle.id)) == {"site-1": "REQUESTED", "site-2": "FAILED"}
        other = await operator.start("site-2", request_id="r2")
        assert {site.name: site.cycle_id for site in await operator.known_sites()} == {
            "site-1": cycle.id, "site-2": other.id,
        }  # fmt: skip


@pytest.mark.parametrize(("first", "state"), [("declines", "DECLINED"), ("fails", "FAILED")])
async def test_when_no_site_is_left_the_cycle_ends(world: World, first: str, state: str) -> None:
    async with two_sites(world) as (operator, one, two):
        cycle = await operator.start(*BOTH)
        no = cycles_pb2.DeclineCycleRequest(id=cycle.id)
        if first == "declines":
            await ask(one.cycles.DeclineCycle, no)
        else:
            await ask(one.stub.FailTask, sites_pb2.FailTaskRequest(task_id=f"{cycle.id}/extract", reason="no room"))
        await ask(two.cycles.DeclineCycle, no)
        assert state_of(await operator.until(cycle.id)) == state


async def test_one_site_where_the_release_is_worse_takes_it_back_for_all(world: World) -> None:
    world.settings["canary_devices"] = 0
    async with two_sites(world) as (operator, one, two):
        cycle = await operator.start(*BOTH)
        for site in (one, two):
            await site.extract(await site.next_task(sites_pb2.TASK_KIND_EXTRACT))
        await operator.until(cycle.id, "CANARY")
        await one.validate(cycle.id)
        await two.validate(cycle.id, map50=0.3)
        ended = await operator.until(cycle.id)
        assert (state_of(ended), ended.history[-1].actor) == ("ROLLED_BACK", "site/site-2")
        assert ended.history[-1].reason.startswith("site-2: mAP50")


async def test_every_site_has_canaries_and_the_release_goes_to_all_after_all_of_them(world: World) -> None:
    async with two_sites(world) as (operator, one, two):
        camera, more, twin = world.device(), world.device("cam-2"), world.device("cam-1", "site-2", identity="twin")
        for device in (camera, more, twin):
            await device.register()
        cycle = await operator.start(*BOTH)
        for site in (one, two):
            await site.extract(await site.next_task(sites_pb2.TASK_KIND_EXTRACT))
        assert (await camera.until(2)).version == (await twin.until(2)).version
        assert (await more.until(1)).version == 1
        for site in (one, two):
            await site.validate(cycle.id)
        await camera.report(2)
        assert state_of(await operator.get(cycle.id)) == "CANARY"
        await twin.report(2)
        assert state_of(await operator.until(cycle.id)) == "RELEASED"
        assert (await more.until(2)).version == 2


async def test_a_site_that_is_silent_while_another_waits_drops_out(world: World) -> None:
    world.settings |= {"canary_devices": 0, "straggler_deadline_s": 1.5}
    async with two_sites(world) as (operator, one, two):
        cycle = await operator.start(*BOTH)
        await two.begin((await two.next_task(sites_pb2.TASK_KIND_EXTRACT)).cycle_id)
        await one.extract(await one.next_task(sites_pb2.TASK_KIND_EXTRACT))
        candidate = await operator.until(cycle.id, "CANARY")
        assert (state_of(candidate), standing(candidate)["site-2"]) == ("CANARY", "FAILED")
        assert "no progress" in candidate.sites[1].reason


async def test_killed_while_one_has_uploaded_and_the_other_has_not_nothing_is_lost(world: World) -> None:
    process = Process(world)
    await process.start()
    try:
        await world.until_ready()
        operator, one, two = await known(world)
        cycle = await operator.start(*BOTH)
        task = await two.next_task(sites_pb2.TASK_KIND_EXTRACT)
        await two.begin(cycle.id)
        labels = await two.propose(cycle.id, "crane")
        await one.extract(await one.next_task(sites_pb2.TASK_KIND_EXTRACT), "forklift")
        process.kill()
        await process.start()
        again = await operator.get(cycle.id)
        assert (state_of(again), standing(again)) == ("EXTRACTING", {"site-1": "UPLOADED", "site-2": "EXTRACTING"})
        assert (await two.next_task(sites_pb2.TASK_KIND_EXTRACT)).id == task.id
        await two.submit(await two.manifest(task, labels, taught=["crane"]))
        process.kill()
        await process.start()
        await operator.until(cycle.id, "CANARY")
        await one.validate(cycle.id)
        process.kill()
        await process.start()
        await two.validate(cycle.id)
        ended = await operator.until(cycle.id)
        assert state_of(ended) == "RELEASED", ended.history[-1].reason
        assert [part.gap.labels.classes[-1].name for part in ended.sites] == ["forklift", "crane"]
        tutor = await operator.model(ended.updated_tutor_id)
        assert [item.name for item in tutor.labels.classes] == ["car", "person", "crane", "forklift"]
    finally:
        process.kill()


async def test_scores_reach_the_tutor_and_style_reaches_the_student_of_the_site_that_publishes_it(world: World) -> None:
    async with two_sites(world, publish_style=True) as (operator, one, two):
        cycle = await operator.start(*BOTH)
        for site in (one, two):
            task = await site.next_task(sites_pb2.TASK_KIND_EXTRACT)
            await site.begin(cycle.id)
            manifest = await site.manifest(task, await site.propose(cycle.id, "forklift"))
            if site is two:
                manifest.scores.add(lam=0.2, metrics=metrics(0.3))
                manifest.style.update(STYLE)
            await site.submit(manifest)
        candidate = await operator.until(cycle.id, "CANARY")
        metrics_by_state = {cycles_pb2.CycleState.Name(step.state): step.metrics for step in candidate.history}
        heard = metrics_by_state["CYCLE_STATE_APPLIED"]["tried"]
        assert [(score["lam"], score["metrics"]["map50"]) for score in heard] == [(0.2, 0.3)]
        assert dict(metrics_by_state["CYCLE_STATE_REDISTILLED"]["images"]) == {"styled": 1}
        assert [part.publishes_style for part in candidate.sites] == [False, True]
        assert not candidate.sites[0].gap.HasField("style")


async def test_a_site_sees_its_own_part_of_a_cycle_and_nothing_of_the_others(world: World) -> None:
    async with two_sites(world) as (operator, one, two):
        cycle = await operator.start(*BOTH)
        await one.extract(await one.next_task(sites_pb2.TASK_KIND_EXTRACT))
        await two.extract(await two.next_task(sites_pb2.TASK_KIND_EXTRACT), "crane")
        await operator.until(cycle.id, "CANARY")
        await one.validate(cycle.id)
        await two.validate(cycle.id, map50=0.6)
        await operator.until(cycle.id)
        request = cycles_pb2.GetCycleRequest(id=cycle.id)
        seen = (await ask(one.cycles.GetCycle, request)).cycle
        assert (state_of(seen), [part.site for part in seen.sites], seen.site) == ("RELEASED", ["site-1"], "site-1")
        assert seen.sites[0].gap.tutor_gap == seen.gap.tutor_gap
        listed = (await ask(one.cycles.ListCycles, cycles_pb2.ListCyclesRequest())).cycles[0]
        watched = (await anext(aiter(one.cycles.WatchCycle(cycles_pb2.WatchCycleRequest(id=cycle.id))))).cycle
        for shown in (seen, listed, watched):
            assert "site-2" not in str(shown)
            assert states_of(shown) == states_of(await operator.get(cycle.id))
        last = (await ask(two.cycles.GetCycle, request)).cycle  # its validation was the last: it decided for all
        assert "site-1" not in str(last)
        assert last.history[-1].metrics["after"]["map50"] == pytest.approx(0.6)
        assert seen.history[-1].metrics["after"]["map50"] == pytest.approx(0.7)


async def test_a_policy_on_styles_that_changes_while_a_site_works_costs_it_no_work(world: World) -> None:
    async with two_sites(world) as (operator, one, _):
        cycle = await operator.start("site-1")
        task = await one.next_task(sites_pb2.TASK_KIND_EXTRACT)
        await one.begin(cycle.id)
        manifest = await one.manifest(task, await one.propose(cycle.id, "forklift"))
        manifest.style.update(STYLE)
        with pytest.raises(InvalidInput, match="publishes none"):
            await one.submit(manifest)
        again = world.site("site-1", publish_style=True)  # started anew, with another configuration
        await again.next_task(sites_pb2.TASK_KIND_EXTRACT)
        await again.submit(manifest)
        assert (await operator.get(cycle.id)).sites[0].publishes_style


async def test_the_sites_of_a_request_are_named_once_and_known(world: World) -> None:
    async with two_sites(world) as (operator, _, _):
        with pytest.raises(InvalidInput, match="once"):
            await operator.start("site-1", "site-1")
        with pytest.raises(NotFound, match="site-9"):
            await operator.start("site-1", "site-9")
        with pytest.raises(InvalidInput, match="sites"):
            await ask(operator.cycles.StartCycle, cycles_pb2.StartCycleRequest(request_id="r0"))
        cycle = await operator.start(*BOTH)
        assert (await operator.start("site-2", "site-1")).id == cycle.id
        with pytest.raises(InvalidInput, match="r1"):
            await operator.start("site-1")


async def diredi(world: World, *arguments: str, identity: str = "alice") -> tuple[str, str]:
    """The `diredi` command as a process: what it printed for people, and what it noted."""
    connection = ["--cloud", world.address, "--identity", str(world.identities / identity)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "diredi_cli", *arguments, *connection, cwd=ROOT, stdout=PIPE, stderr=PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    printed, noted = (part.decode() for part in await process.communicate())
    assert process.returncode == 0, noted
    return printed, noted


async def test_the_command_line_starts_and_shows_the_sites_of_a_cycle(world: World) -> None:
    async with two_sites(world, auto_approve=False, publish_style=True) as (_, one, two):
        printed, _ = await diredi(world, "cycle", "start", "--site", "site-1", "--site", "site-2", "--json")
        cycle = json.loads(printed)
        assert [(part["site"], part["state"]) for part in cycle["sites"]] == [(site, "REQUESTED") for site in BOTH]
        await one.extract(await one.next_task(sites_pb2.TASK_KIND_EXTRACT))
        await two.next_task(sites_pb2.TASK_KIND_EXTRACT)
        await ask(two.cycles.ApproveCycle, cycles_pb2.ApproveCycleRequest(id=cycle["id"]))
        shown, _ = await diredi(world, "cycle", "show", cycle["id"], identity="site-2")
        assert "publishes its style" in shown
        assert "site-1" not in shown
        await two.begin(cycle["id"])
        shown, _ = await diredi(world, "cycle", "show", cycle["id"])
        lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
        assert "UPLOADED" in lines["site-1"] and "40 images" in lines["site-1"]
        assert "EXTRACTING, tutor-2 0 %" in lines["site-2"] and "publishes its style" in lines["site-2"]
        await ask(two.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=cycle["id"], reason="not this week"))
        listed, _ = await diredi(world, "cycle", "list")
        assert "site-1, site-2 (DECLINED)" in listed
        assert "not this week" in (await diredi(world, "cycle", "show", cycle["id"]))[0]
