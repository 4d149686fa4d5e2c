from __future__ import annotations

import asyncio

from cloud_server.notifier import Notifier
from tests.support.waiting import PATIENCE_S


async def test_a_change_between_the_look_and_the_wait_is_not_missed() -> None:
    notifier = Notifier()
    seen_version = notifier.version("a")
    notifier.notify("a")
    assert await asyncio.wait_for(notifier.wait_for_change("a", seen_version), PATIENCE_S)


async def test_all_who_wait_for_a_topic_wake_and_nobody_else() -> None:
    notifier = Notifier()
    waiting = [asyncio.create_task(notifier.wait_for_change("a", notifier.version("a"))) for _ in range(50)]
    other = asyncio.create_task(notifier.wait_for_change("b", notifier.version("b"), 0.05))
    await asyncio.sleep(0)
    notifier.notify("a")
    assert await asyncio.gather(*waiting) == [True] * 50
    assert await other is False


async def test_one_who_gives_up_takes_nobody_with_him() -> None:
    notifier = Notifier()
    patient = asyncio.create_task(notifier.wait_for_change("a", 0))
    assert await notifier.wait_for_change("a", 0, 0.01) is False
    notifier.notify("a")
    assert await asyncio.wait_for(patient, PATIENCE_S)
