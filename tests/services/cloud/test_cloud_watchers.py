"""Streams wake at once, repeat themselves, survive a reconnect, and cost little."""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import pytest

from diredi.errors import InvalidInput
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import cycles_pb2, fleet_pb2, sites_pb2
from tests.services.cloud.world import World, ask, state_of
from tests.support.waiting import PATIENCE_S


async def test_a_watcher_of_a_cycle_sees_it_now_and_after_each_change_until_it_ends(world: World) -> None:
    async with world.cloud():
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        stream = read_messages(operator.cycles.WatchCycle(cycles_pb2.WatchCycleRequest(id=task.cycle_id)), 20)
        assert state_of((await anext(stream)).cycle) == "EXTRACTING"
        request = sites_pb2.ReportProgressRequest(
            cycle_id=task.cycle_id, progress=cycles_pb2.Progress(step="tutor-2", fraction=0.5, message="epoch 2 of 4")
        )
        await ask(site.stub.ReportProgress, request)
        assert (await anext(stream)).cycle.progress.message == "epoch 2 of 4"
        await ask(site.cycles.DeclineCycle, cycles_pb2.DeclineCycleRequest(id=task.cycle_id))
        assert [state_of(message.cycle) async for message in stream] == ["DECLINED"]


async def test_no_stream_is_silent_for_longer_than_the_keep_alive(world: World) -> None:
    async with world.cloud(keep_alive_s=0.2):
        site, operator, camera = world.site(), world.operator(), world.device()
        task = await site.extracting(operator)
        tasks = read_messages(site.stub.WatchTasks(sites_pb2.WatchTasksRequest(site="site-1")), 10)
        assert (await anext(tasks)).task.id == task.id
        assert not (await anext(tasks)).HasField("task")
        releases = read_messages(camera.stub.WatchReleases(fleet_pb2.WatchReleasesRequest(device="cam-1")), 10)
        assert [(await anext(releases)).release.version for _ in range(3)] == [1, 1, 1]
        cycle = read_messages(operator.cycles.WatchCycle(cycles_pb2.WatchCycleRequest(id=task.cycle_id)), 10)
        assert [state_of((await anext(cycle)).cycle) for _ in range(3)] == ["EXTRACTING"] * 3


async def test_a_task_is_sent_again_after_a_reconnect_and_once_on_a_stream(world: World) -> None:
    async with world.cloud(keep_alive_s=0.2):
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        for _ in range(2):
            stream = read_messages(site.stub.WatchTasks(sites_pb2.WatchTasksRequest(site="site-1")), 10)
            said = [await anext(stream) for _ in range(4)]
            assert [message.task.id for message in said] == [task.id, "", "", ""]
            await stream.aclose()


@pytest.mark.slow
async def test_hundreds_of_devices_hear_of_a_release_at_once(world: World) -> None:
    """On one connection; the streams of a fleet come on thousands, which costs the same here and more in the kernel."""
    many = 300
    world.settings["canary_devices"] = 0
    async with world.cloud(keep_alive_s=600) as cloud:
        site, operator, camera = world.site(), world.operator(), world.device("cam-2")
        request = fleet_pb2.WatchReleasesRequest(device="cam-2")
        streams = [read_messages(camera.stub.WatchReleases(request), 240) for _ in range(many)]
        assert {(await anext(stream)).release.version for stream in streams} == {1}
        assert cloud.context.open_streams["device/site-1/cam-2"] == many
        task = await site.extracting(operator)
        await site.extract(task)
        await operator.until(task.cycle_id, "CANARY")
        waiting = asyncio.gather(*(anext(stream) for stream in streams))
        began = asyncio.get_running_loop().time()
        await site.validate(task.cycle_id)
        assert {message.release.version for message in await waiting} == {2}
        assert asyncio.get_running_loop().time() - began < 20
        for stream in streams:
            await stream.aclose()
        del streams
        gc.collect()
        async with asyncio.timeout(PATIENCE_S):  # the server forgets a stream that its client has closed
            while cloud.context.open_streams["device/site-1/cam-2"]:
                await asyncio.sleep(0.02)


async def test_sites_and_devices_are_shown_as_they_are(world: World) -> None:
    async with world.cloud():
        site, operator, camera = world.site(), world.operator(), world.device()
        await camera.register()
        tasks = asyncio.create_task(site.next_task())
        await operator.until_known("site-1")
        (known,) = await operator.known_sites()
        assert (known.name, known.online, known.devices, known.cycle_id) == ("site-1", True, 1, "")
        assert known.received_bytes["diredi.v1.WatchTasksRequest"] > 5
        tasks.cancel()
        sources = [
            fleet_pb2.Source(name="gate", state=fleet_pb2.SOURCE_STATE_REFUSED),
            fleet_pb2.Source(name="yard", state=fleet_pb2.SOURCE_STATE_OK, drift="light"),
        ]
        heartbeat = fleet_pb2.HeartbeatRequest(
            device="cam-1", release_version=1, frames=70, frames_per_second=9.5, latency_ms=12.5, sources=sources
        )
        await ask(camera.stub.Heartbeat, heartbeat)
        await camera.report(1)
        await camera.report(1)
        device = (await operator.devices())["cam-1"]
        assert (device.site, device.online, device.release_version) == ("site-1", True, 1)
        assert (device.frames, device.frames_per_second, device.latency_ms) == (70, 9.5, 12.5)
        assert [event.release_version for event in device.installs] == [1]
        assert list(device.sources) == sources
        assert "online, gate: wrong password, yard: light has changed" in await device_list(world)
        for wrong in (
            [fleet_pb2.Source(name="\x1b[31m")],
            [fleet_pb2.Source(name="a", drift="\x1b")],
            65 * [fleet_pb2.Source(name="gate")],
        ):
            with pytest.raises(InvalidInput, match="source"):
                await ask(camera.stub.Heartbeat, fleet_pb2.HeartbeatRequest(device="cam-1", sources=wrong))


async def device_list(world: World) -> str:
    command = ["device", "list", "--cloud", world.address, "--identity", str(world.identities / "alice")]
    environment = {**os.environ, "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "diredi_cli", *command, env=environment, stdout=asyncio.subprocess.PIPE
    )
    return (await process.communicate())[0].decode()


async def test_what_devices_said_last_is_there_after_a_restart(world: World) -> None:
    cloud = await world.start()
    await ask(world.device().stub.Heartbeat, fleet_pb2.HeartbeatRequest(device="cam-1", release_version=1, frames=7))
    await cloud.stop(0)
    async with world.cloud():
        assert (await world.operator().devices())["cam-1"].frames == 7
