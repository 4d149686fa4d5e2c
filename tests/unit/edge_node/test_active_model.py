"""Swapping models between two frames."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from diredi.detectors.predictor import Detections, Image
from diredi.errors import WrongState
from diredi.labels import LabelSpace
from edge_node.active_model import ActiveModel, RunningModel
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


def test_a_model_that_proved_itself_is_not_taken_back_for_a_later_error() -> None:
    active, outcomes, new = ActiveModel(), [], Model()
    active.swap(running(1, Model()))
    active.swap(running(2, new), outcomes.append)
    active.detect(FRAME, 0.25)
    new.breaks = True
    with pytest.raises(RuntimeError):
        active.detect(FRAME, 0.25)
    assert active.current is not None
    assert active.current.release.version == 2
    assert outcomes == [None]


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
