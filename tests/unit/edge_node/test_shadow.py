"""A new release runs beside the one that detects, and takes over only if it finds about the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from diredi.data.sample_reason import SampleReason
from diredi.detectors.predictor import Detections, Image
from diredi.labels import LabelSpace
from edge_node.active_model import RunningModel
from edge_node.inference import Broadcast, Result
from edge_node.shadow import LEAST_BOXES, ShadowRun, TooDifferent, compare
from edge_node.sources import check_source
from edge_node.update_states import InstallableRelease, State
from tests.unit.edge_node.updater_harness import UpdaterHarness

OLD, NEW = LabelSpace(names=("car", "person")), LabelSpace(names=("car", "person", "forklift"))
IMAGE = np.zeros((48, 64, 3), np.uint8)
CARS = Detections.of([[0, 0, 20, 20], [30, 0, 50, 20]], [0.9, 0.8], [0, 0])
NOTHING = Detections.of(np.zeros((0, 4)), [], [])


class Finds:
    """A predictor that finds the same in each image."""

    labels = NEW

    def __init__(self, found: Detections) -> None:
        self.found, self.calls = found, 0

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        self.calls += 1
        return [self.found] * len(images)


def running(version: int, labels: LabelSpace, predictor: Finds | None = None) -> RunningModel:
    digest = "sha256:" + str(version) * 64
    release = InstallableRelease(version=version, digest=digest, bytes=1, labels=labels, image_size=64)
    return RunningModel(release, predictor or Finds(NOTHING))


def test_boxes_are_compared_by_name_and_place_and_only_of_classes_that_both_know() -> None:
    moved = Detections.of([[1, 0, 21, 20], [30, 0, 50, 20]], [0.3, 0.9], [0, 0])
    assert compare(CARS, OLD, moved, NEW) == (3, []), "a score may fall as long as the box is reported"
    forklift = Detections.of([[0, 0, 20, 20], [30, 0, 50, 20], [0, 30, 9, 39]], [0.9, 0.8, 0.95], [0, 0, 2])
    assert compare(CARS, OLD, forklift, NEW) == (4, []), "what the old release cannot know is no disagreement"
    person = CARS.with_ids(np.array([1, 0]))
    assert compare(CARS, OLD, person, NEW) == (4, [pytest.approx(0.9), pytest.approx(0.8)] * 2)
    swapped = LabelSpace(names=("person", "car"))
    assert compare(CARS, OLD, CARS.with_ids(np.array([1])), swapped) == (4, [])
    assert compare(NOTHING, OLD, NOTHING, NEW) == (0, [])


@pytest.mark.parametrize(("finds", "refused", "sampled"), [(CARS, False, 0), (NOTHING, True, LEAST_BOXES)])
async def test_a_release_that_finds_other_objects_is_refused_and_its_frames_are_worth_a_label(
    finds: Detections, refused: bool, sampled: int
) -> None:
    broadcast, suggested = Broadcast(asyncio.get_running_loop()), list[tuple[Result, list[SampleReason], float]]()
    shadow = ShadowRun(
        broadcast, lambda *one: suggested.append(one), {"yard": check_source("scenes:site-1").settings}, seconds=60,
        share=1.0, max_differing=0.5, confidence=0.25, random=Random(0),
    )  # fmt: skip
    candidate, old = Finds(finds), running(1, OLD)
    run = asyncio.create_task(shadow.run(running(2, NEW, candidate), lambda: True))
    for number in range(LEAST_BOXES):
        while candidate.calls < number and not run.done():
            await asyncio.sleep(0)
        broadcast.publish(Result(number, "yard", float(number), IMAGE, CARS, old))
        await asyncio.sleep(0)
    broadcast.publish(None)
    if refused:
        with pytest.raises(TooDifferent, match="100 of 100 boxes differ on 50 frames"):
            await run
    else:
        await run
    assert (shadow.tally.frames, len(suggested)) == (LEAST_BOXES, sampled)
    assert all(one[1:] == ([SampleReason.DISAGREEMENT], pytest.approx(0.9)) for one in suggested)


async def test_a_shadow_run_ends_when_its_time_is_over_or_another_release_is_wanted() -> None:
    broadcast, candidate = Broadcast(asyncio.get_running_loop()), Finds(NOTHING)
    settings = {"yard": check_source("scenes:site-1").settings}
    limits = {"share": 1.0, "max_differing": 0.5, "confidence": 0.25, "random": Random(0)}
    await ShadowRun(broadcast, None, settings, seconds=0.01, **limits).run(  # type: ignore[arg-type]
        running(2, NEW, candidate), lambda: True
    )
    shadow = ShadowRun(broadcast, None, settings, seconds=60, **limits)  # type: ignore[arg-type]
    run = asyncio.create_task(shadow.run(running(2, NEW, candidate), lambda: False))
    await asyncio.sleep(0)
    broadcast.publish(Result(1, "yard", 0.0, IMAGE, CARS, running(1, OLD)))
    await run
    assert candidate.calls == 0


async def test_a_candidate_that_is_too_different_is_reported_and_never_detects(tmp_path: Path) -> None:
    harness, seen = UpdaterHarness(tmp_path), list[int]()

    async def shadow(candidate: RunningModel, is_wanted: object) -> None:
        seen.append(candidate.release.version)
        if candidate.release.version == 2:
            raise TooDifferent("release 2 finds other objects")

    harness.shadow = shadow
    updater = harness.start()
    for version in (1, 2, 3):
        updater.request(harness.publish(version))
        await harness.run(updater, lambda: len(harness.reports) == version)  # noqa: B023
    assert seen == [2, 3], "the first release has nothing to run beside"
    assert [(version, installed) for version, installed, _ in harness.reports] == [(1, True), (2, False), (3, True)]
    assert harness.reports[1][2] == "warming: beside the release that runs, it finds other objects on too many frames"
    assert updater.record.state is State.IDLE and updater.record.installed.version == 3  # type: ignore[union-attr]


async def test_a_release_is_no_longer_tried_once_another_one_is_wanted(tmp_path: Path) -> None:
    harness = UpdaterHarness(tmp_path)

    async def shadow(candidate: RunningModel, is_wanted: object) -> None:
        if candidate.release.version == 2:
            updater.request(harness.publish(3))

    harness.shadow = shadow
    updater = harness.start()
    updater.request(harness.publish(1))
    await harness.run(updater, lambda: len(harness.reports) == 1)
    updater.request(harness.publish(2))
    await harness.run(updater, lambda: len(harness.reports) == 2)
    assert [version for version, _, _ in harness.reports] == [1, 3]
