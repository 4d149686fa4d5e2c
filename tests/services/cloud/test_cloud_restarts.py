"""Killed at any step and started again, the cloud finishes its cycles."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cloud_server.notifier import CYCLES
from tests.services.cloud.test_cloud_cycle import MAIN_LINE
from tests.services.cloud.world import World, state_of, states_of
from tests.support.host_trace import HostTrace
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


async def test_killed_after_every_single_transition_the_cycle_is_released_and_nothing_happens_twice(
    world: World,
) -> None:
    cloud = await world.start()
    await world.until_ready()
    site, operator, camera = world.site(), world.operator(), world.device()
    await camera.register()
    others = [asyncio.create_task(site.work()), asyncio.create_task(camera.work())]
    await operator.until_known("site-1")
    cycle = await operator.start()
    lives = 0
    try:
        async with asyncio.timeout(200):
            while state_of(await operator.get(cycle.id)) != "RELEASED":
                notifier = cloud.context.notifier
                # Cancelled in the very turn of the event loop in which the transition became known.
                if await notifier.wait_for_change(CYCLES, notifier.version(CYCLES), 15):
                    cloud.work.cancel()
                await cloud.stop(0)
                lives += 1
                cloud = await world.start()
        ended = await operator.get(cycle.id)
    finally:
        for task in others:
            task.cancel()
        await cloud.stop(0)
    assert states_of(ended) == MAIN_LINE
    assert lives >= len(MAIN_LINE) - 2
    assert ended.release_version == 2
    assert not list((world.state_dir / "blobs" / "partial").glob("add-*"))


async def test_on_postgresql_a_cloud_that_is_killed_on_the_way_finishes_too(
    empty_world: World, postgres_url: str
) -> None:
    world = empty_world
    world.settings |= {"database_url": postgres_url, "canary_devices": 0}
    cloud = await world.start()
    try:
        await world.until_ready()
        site, operator = world.site(), world.operator()
        working = asyncio.create_task(site.work())
        await operator.until_known("site-1")
        cycle = await operator.start()
        await operator.until(cycle.id, "GATED")
        await cloud.stop(0)
        cloud = await world.start()
        ended = await operator.until(cycle.id)
        working.cancel()
    finally:
        await cloud.stop(0)
    assert states_of(ended) == MAIN_LINE
    assert not (world.state_dir / "cloud.sqlite").exists()


async def test_killed_in_the_middle_of_each_job_the_job_is_done_again(world: World) -> None:
    cloud = await world.start()
    await world.until_ready()
    site, operator = world.site(), world.operator()
    task = await site.extracting(operator)
    labels = await site.propose(task.cycle_id, "forklift")
    manifest = await site.manifest(task, labels)
    await site.submit(manifest)
    for state in ("UPLOADED", "GATED"):
        # A job is under way, or about to be, whenever the cycle waits in these states.
        if state in states_of(await operator.until(task.cycle_id, state)):
            await cloud.stop(0)
            cloud = await world.start()
    await site.submit(manifest)  # the answer to the first one may have been lost: the same again is fine
    assert state_of(await operator.until(task.cycle_id, "CANARY")) == "CANARY"
    await site.validate(task.cycle_id)
    assert state_of(await operator.until(task.cycle_id)) == "RELEASED"
    await cloud.stop(0)


class Process:
    """The cloud as a process that can be killed as the kernel does it."""

    def __init__(self, world: World) -> None:
        config = world.config()
        self.world = world
        self.command = [
            sys.executable, "-m", "tests.services.cloud.quick_cloud", "--state-dir", str(config.state_dir),
            "--identity", str(config.identity), "--presumed", config.presumed,
        ]  # fmt: skip
        self.log = world.folder / "cloud.log"

    async def start(self) -> None:
        listen = self.world.address or "127.0.0.1:0"
        self.log.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self.trace = HostTrace(self.world.folder / "trace")
            command = [*self.trace.prefix, *self.command, "--listen", listen]
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for line in self.log.read_text().splitlines():
                    with suppress(json.JSONDecodeError):
                        entry = json.loads(line)
                        if entry.get("event") == "service_started":
                            self.world.address = entry["address"]
                            return
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
async def process(world: World):
    process = Process(world)
    await process.start()
    yield process
    process.kill()


async def test_a_process_that_is_killed_in_each_state_finishes_the_cycle(world: World, process: Process) -> None:
    await world.until_ready()
    site, operator, camera = world.site(), world.operator(), world.device()
    await camera.register()
    others = [asyncio.create_task(site.work()), asyncio.create_task(camera.work())]
    await operator.until_known("site-1")
    cycle = await operator.start()
    try:
        for state in ("EXTRACTING", "UPLOADED", "GATED", "CANARY"):
            if state_of(await operator.until(cycle.id, state)) == state:
                process.kill()
                await process.start()
        ended = await operator.until(cycle.id)
    finally:
        for task in others:
            task.cancel()
    assert states_of(ended) == MAIN_LINE
    assert (await operator.devices())["cam-1"].release_version == 2
    process.kill()
    assert await process.trace.reached(process.process.pid) == set(), "a cloud is called and calls nobody"


async def test_a_process_ends_when_it_is_told_to_though_somebody_watches(world: World, process: Process) -> None:
    await world.until_ready()
    watching = asyncio.create_task(anext(world.device().releases()))
    await watching
    process.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.process.wait, PATIENCE_S) == 0


async def test_its_jobs_end_with_it(world: World, process: Process) -> None:
    await world.until_ready()
    site, operator = world.site(), world.operator()
    task = await site.extracting(operator)
    await site.extract(task)
    process.kill()
    mine = str(world.state_dir)
    async with asyncio.timeout(PATIENCE_S):
        while _running(mine):
            await asyncio.sleep(0.05)


def _running(argument: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "diredi.jobs" in command and argument in command:
                    found.append(command)
    return found
