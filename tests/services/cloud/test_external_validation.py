"""Those who gain by a release are not its only judges: sites that take no part are asked, where they allow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from diredi.errors import NotFound, Refused, WrongState
from diredi.rpc import convert
from diredi.rpc.v1 import sites_pb2
from tests.services.cloud.world import Operator, SiteSide, World, state_of

EXTERNAL = sites_pb2.TASK_KIND_VALIDATE_EXTERNAL


@asynccontextmanager
async def candidate(world: World) -> AsyncIterator[tuple[Operator, SiteSide, SiteSide, SiteSide, Any]]:
    """A cycle of site-1 in CANARY, and what site-2 is asked, which allows it; site-3 is connected and does not."""
    world.settings["canary_devices"] = 0
    async with world.cloud():
        operator, one, two, three = world.operator(), *(world.site(f"site-{n}") for n in (1, 2, 3))
        two.validates_external = True
        listening = [asyncio.create_task(two.next_task()), asyncio.create_task(three.next_task())]
        await operator.until_known("site-2", "site-3")
        extract = await one.extracting(operator)
        await one.extract(extract)
        yield operator, one, two, three, await listening[0]
        assert not listening[1].done(), "a site that does not allow it is asked nothing"
        listening[1].cancel()
        await asyncio.gather(listening[1], return_exceptions=True)


@pytest.mark.slow
async def test_a_release_that_is_worse_where_nobody_gains_by_it_is_rolled_back(world: World) -> None:
    async with candidate(world) as (operator, one, two, three, task):
        assert (task.kind, task.student.onnx.digest != task.deployed.onnx.digest) == (EXTERNAL, True)
        assert not task.HasField("recipe") and not task.HasField("tutor")
        for model in (task.student, task.deployed):
            assert await two.fetch(model.onnx)
        with pytest.raises(NotFound):
            await two.fetch(task.student.weights)
        with pytest.raises(NotFound):
            await three.fetch(task.student.onnx)
        for stranger in (one, three):
            with pytest.raises(Refused):
                await stranger.validate_external(task.cycle_id, 0.1, 0.9)
        await one.validate(task.cycle_id, map50=0.9)
        assert state_of(await operator.get(task.cycle_id)) == "CANARY", "the other site is waited for"
        await two.validate_external(task.cycle_id, 0.6, 0.5)
        ended = await operator.until(task.cycle_id, "ROLLED_BACK")
        assert state_of(ended) == "ROLLED_BACK"
        assert "worse at 1 of 1 sites that took no part" in ended.history[-1].reason
        figures = convert.struct_from(ended.history[-1].metrics)["external"]["site-2"]
        assert (figures["before"]["map50"], figures["after"]["map50"]) == pytest.approx((0.6, 0.5))
        with pytest.raises(WrongState):
            await two.validate_external(task.cycle_id, 0.5, 0.6)
        (two.folder / task.student.onnx.digest.removeprefix("sha256:")).unlink()
        with pytest.raises(NotFound):
            await two.fetch(task.student.onnx)


async def test_what_other_sites_say_is_not_told_to_the_sites_of_the_cycle_and_one_that_cannot_say_stops_nobody(
    world: World,
) -> None:
    from diredi.rpc.v1 import cycles_pb2
    from tests.services.cloud.world import ask

    async with candidate(world) as (operator, one, two, _, task):
        await two.validate_external(task.cycle_id, 0.6, 0.6)
        await one.validate(task.cycle_id)
        ended = await operator.until(task.cycle_id, "RELEASED")
        assert "worse at 0 of 1 sites" in ended.history[-1].reason
        assert "site-2" in str(ended)
        seen = (await ask(one.cycles.GetCycle, cycles_pb2.GetCycleRequest(id=task.cycle_id))).cycle
        assert state_of(seen) == "RELEASED" and "site-2" not in str(seen)
