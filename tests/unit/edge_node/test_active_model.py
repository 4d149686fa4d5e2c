"""Swapping models between two frames."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from diredi.detectors.predictor import Detections, Image
from diredi.errors import WrongState
from diredi.labels import LabelSpace
from edge_node.active_model import FAILURES_IN_A_ROW, ActiveModel, RunningModel
from edge_node.update_states import InstallableRelease

FRAME = np.zeros((8, 8, 3), np.uint8)
LABELS = LabelSpace(names=("car",))


class Model:
    labels = LABELS

    def __init__(self, breaks: bool = False) -> None:
        self.breaks = breaks
        self.calls = 0

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        self.calls += 1
        if self.breaks:
            raise RuntimeError("broken")
        return [Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(images)


def running(version: int, model: Model) -> RunningModel:
    release = InstallableRelease(version=version, digest="sha256:" + "0" * 64, bytes=1, labels=LABELS, image_size=64)
    return RunningModel(release, model)


def test_without_a_model_it_says_what_to_wait_for() -> None:
    with pytest.raises(WrongState, match="no release is installed"):
        ActiveModel().detect(FRAME, 0.25)


def test_a_frame_on_which_the_new_model_breaks_is_detected_by_the_old_one() -> None:
    active, outcomes = ActiveModel(), []
    active.swap(running(1, Model()))
    active.accept()
    active.swap(running(2, Model(breaks=True)), outcomes.append)
    assert active.detect(FRAME, 0.25)[0].release.version == 1
    assert active.current is not None
    assert active.current.release.version == 1
    assert isinstance(outcomes[0], RuntimeError)


def test_a_model_that_fails_on_some_later_frames_stays_and_the_one_before_detects_these() -> None:
    active, outcomes, new = ActiveModel(), [], Model()
    active.swap(running(1, Model()))
    active.swap(running(2, new), outcomes.append)
    versions = []
    for new.breaks in (False, True, True, False, True, True, False):
        versions.append(active.detect(FRAME, 0.25)[0].release.version)
    assert versions == [2, 1, 1, 2, 1, 1, 2]
    assert (active.failed_frames, active.failures[2], outcomes) == (4, 4, [None])


def test_a_model_that_fails_on_frame_after_frame_is_followed_by_the_one_before() -> None:
    active, new, failing = ActiveModel(), Model(), []
    active.on_failing = lambda model, error: failing.append((model.release.version, str(error)))
    active.swap(running(1, Model()))
    active.swap(running(2, new))
    active.detect(FRAME, 0.25)
    new.breaks = True
    assert [active.detect(FRAME, 0.25)[0].release.version for _ in range(10)] == [1] * 10
    assert (new.calls, failing) == (1 + FAILURES_IN_A_ROW, [(2, "broken")])


def test_an_overlay_that_fails_on_frame_after_frame_is_taken_off_and_its_release_stays() -> None:
    active, over, failing = ActiveModel(), Model(), []
    active.on_failing = lambda model, _: failing.append(model.release.version)
    active.swap(running(1, Model()))
    active.swap(running(2, Model()))
    active.accept()
    release = active.current
    assert release is not None
    assert active.replace(release, replace(running(2, over), overlay="sha256:of-the-site"))
    active.detect(FRAME, 0.25)
    over.breaks = True
    assert [active.detect(FRAME, 0.25)[0] for _ in range(5)] == [release] * 5
    assert (active.failed_overlays, failing) == ({"sha256:of-the-site"}, [])


def test_where_no_model_stands_by_the_failing_one_stays_and_is_said_again_and_again() -> None:
    active, new, failing = ActiveModel(), Model(), []
    active.on_failing = lambda model, _: failing.append(model.release.version)
    active.swap(running(1, new))
    active.detect(FRAME, 0.25)
    new.breaks = True
    for _ in range(2 * FAILURES_IN_A_ROW):
        with pytest.raises(RuntimeError):
            active.detect(FRAME, 0.25)
    assert failing == [1, 1]


def test_another_form_of_a_release_takes_its_place_only_where_the_release_still_detects() -> None:
    active, outcomes = ActiveModel(), []
    plain, other, broken = running(1, Model()), running(1, Model()), running(1, Model(breaks=True))
    active.swap(plain)
    assert not active.replace(plain, other)  # the release itself is on trial
    active.detect(FRAME, 0.25)
    assert active.replace(plain, broken, outcomes.append)
    assert active.detect(FRAME, 0.25)[0] is plain
    assert isinstance(outcomes[0], RuntimeError)
    assert active.replace(plain, other)
    assert active.detect(FRAME, 0.25)[0] is other
    assert not active.replace(plain, broken)


@pytest.mark.slow
def test_every_frame_of_many_threads_is_detected_while_models_change() -> None:
    active = ActiveModel()
    active.swap(running(1, Model()))
    seen: list[int] = []
    stop = threading.Event()

    def camera() -> None:
        while not stop.is_set():
            seen.append(active.detect(FRAME, 0.25)[0].release.version)

    threads = [threading.Thread(target=camera) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in range(2, 100):
        proved = threading.Event()
        active.swap(running(version, Model(breaks=version % 3 == 0)), lambda _, proved=proved: proved.set())
        assert proved.wait(10)
    stop.set()
    for thread in threads:
        thread.join()
    assert not {version for version in seen if version % 3 == 0}
