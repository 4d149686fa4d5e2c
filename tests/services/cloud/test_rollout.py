"""A rollout in steps over real gRPC, by the command line, with the cloud restarted on the way."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_server import canary
from cloud_server.entities import Release, ReleaseStatus, Rollout
from diredi.errors import WrongState
from diredi.rpc.v1 import fleet_pb2
from tests.services.cloud.world import World, ask
from tests.support.command import command
from tests.unit.cloud_server.samples import NOON

CAMERAS = ("cam-1", "cam-2", "cam-3")


def first_reached() -> tuple[str, int]:
    """The camera that a rollout of release 2 reaches first, and from which percentage on."""
    for percent in range(1, 100):
        rollout = Rollout(steps=(percent, 100))
        release = Release(
            version=2, student_id="", tutor_id="", status=ReleaseStatus.RELEASED, rollout=rollout, created=NOON
        )
        reached = [name for name in CAMERAS if canary.is_reached(f"site-1/{name}", release)]
        if reached:
            (name,) = reached
            return name, percent
    raise AssertionError


@pytest.mark.slow
async def test_a_release_that_fails_on_the_first_devices_stops_there_until_a_person_decides(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    first, percent = first_reached()
    world.settings |= {"canary_devices": 0, "rollout_steps": [percent, 100], "rollout_step_s": 1.0}

    async def rollout(*arguments: str) -> tuple[int, Any]:
        who = ["--cloud", world.address, "--identity", world.identities / "alice"]
        return (await command(capsys, "rollout", *arguments, *who))[:2]

    async with world.cloud():
        site, operator = world.site(), world.operator()
        devices = {name: world.device(name) for name in CAMERAS}
        for device in devices.values():
            await device.register()
            await device.until(1)
        task = await site.extracting(operator, "second")
        await site.extract(task)
        await operator.until(task.cycle_id, "CANARY")
        await site.validate(task.cycle_id)
        await operator.until(task.cycle_id, "RELEASED")
        assert (await devices[first].until(2)).version == 2
        await devices[first].report(2, fleet_pb2.INSTALL_OUTCOME_FAILED, "does not load")
        code, (running,) = await rollout("list")
        while not running.get("paused"):
            code, (running,) = await rollout("list")
        assert (code, running["paused"], running["failed"]) == (0, "1 of 1 devices cannot run it", 1)
    await world.close()
    async with world.cloud():
        devices = {name: world.device(name) for name in CAMERAS}
        told = {name: (await anext(device.releases())).release.version for name, device in devices.items()}
        assert told == {name: 2 if name == first else 1 for name in CAMERAS}
        assert (await rollout("resume", "2", "--percent", "100"))[0] == 0
        for device in devices.values():
            assert (await device.until(2)).version == 2
        await devices["cam-1"].report(2)
        bad = fleet_pb2.DetectionHealth(frames=400, failed_frames=100)
        await ask(
            devices["cam-1"].stub.Heartbeat,
            fleet_pb2.HeartbeatRequest(device="cam-1", release_version=2, frames=400, detection=bad),
        )
        code, shown = await rollout("show", "2")
        assert (code, shown["unhealthy"], shown["status"]) == (0, 1, "released")
        (symptom,) = shown["symptoms"]
        assert (symptom["name"], symptom["example"]) == ("failed frames", "site-1/cam-1 (100 of 400 frames)")
        paused, resumed = shown["decisions"]
        assert (paused["actor"], paused["figures"]["failed"], resumed["actor"]) == ("cloud", 1, "operator/alice")
        assert (await rollout("show", "1"))[0] == WrongState.exit_code, "the first release was for all at once"
        assert (await rollout("abort", "2"))[0] == WrongState.exit_code, "all have it: it is no rollout any more"
