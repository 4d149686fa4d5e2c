"""Progress: what may be in it, and how often it is told."""

from __future__ import annotations

import asyncio

import pytest

from diredi.errors import Unreachable, WrongState
from diredi.progress import Progress
from user_domain.progress import ProgressReporter, sanitize


@pytest.mark.parametrize(
    "message",
    [
        "reading /srv/private/gate-0001.jpg",
        "image gate-0001.jpg",
        "label 0 0.51 0.22 gate.txt",
        "Hans-Peter",
        "C:\\private",
        "aGVsbG8gd29ybGQgdGhpcyBpcyBhbiBpbWFnZQ==",
    ],
)
def test_no_name_path_or_content_gets_through(message: str) -> None:
    progress = sanitize("tutor-2", 0.5, message).message
    assert not any(word in progress for word in ("gate", "private", "srv", "Hans", "aGVs", "jpg", "txt"))


def test_steps_and_metrics_get_through() -> None:
    progress = sanitize("tutor-2", 0.5, "step 3 of 12 detection 1.234, class_scores 0.5, boxes 0.25")
    assert progress == Progress("tutor-2", 0.5, "step 3 of 12 detection 1.234, class_scores 0.5, boxes 0.25")


def test_a_step_that_is_none_and_a_fraction_beyond_one_are_put_right() -> None:
    assert sanitize("/etc/passwd", 7.0, "") == Progress("work", 1.0, "")


class Cloud:
    def __init__(self, error: Exception | None = None) -> None:
        self.progress: list[Progress] = []
        self.error = error

    async def send(self, progress: Progress) -> None:
        self.progress.append(progress)
        if self.error is not None:
            raise self.error


async def run_beside(reporter: ProgressReporter, seconds: float) -> asyncio.Task[None]:
    running = asyncio.create_task(reporter.run())
    await asyncio.wait({running}, timeout=seconds)
    return running


async def test_many_words_of_one_step_become_few_and_a_new_step_is_told_at_once() -> None:
    cloud = Cloud()
    reporter = ProgressReporter(cloud.send, every_s=30)
    running = await run_beside(reporter, 0.01)
    for step in ("download", "tutor-2", "upload"):
        for fraction in range(100):
            reporter.update(step, fraction / 100)
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
    running.cancel()
    assert [progress.step for progress in cloud.progress] == ["download", "tutor-2", "upload"]


async def test_a_cloud_that_is_away_stops_nobody() -> None:
    cloud = Cloud(Unreachable("away"))
    reporter = ProgressReporter(cloud.send, every_s=0.01)
    reporter.update("tutor-2", 0.1)
    running = await run_beside(reporter, 0.1)
    assert not running.done()
    running.cancel()


async def test_a_task_that_is_no_longer_wanted_ends_it() -> None:
    reporter = ProgressReporter(Cloud(WrongState("past extraction")).send, every_s=0.01)
    reporter.update("tutor-2", 0.1)
    with pytest.raises(WrongState):
        await (await run_beside(reporter, 1))


async def test_after_closing_nothing_is_told() -> None:
    cloud = Cloud()
    reporter = ProgressReporter(cloud.send, every_s=0.01)
    reporter.close()
    reporter.update("upload", 1.0)
    (await run_beside(reporter, 0.05)).cancel()
    assert not cloud.progress
