"""What a node finds worth a label: doubt, rare classes, objects that come and go, some at random, no scene twice."""

from __future__ import annotations

from random import Random
from typing import Any

import cv2
import numpy as np
import pytest

from diredi.data.sample_reason import SampleReason
from diredi.detectors.predictor import Detections, Image
from diredi.labels import LabelSpace
from edge_node.active_model import RunningModel
from edge_node.hard_samples import sample_boxes
from edge_node.inference import Result
from edge_node.sample_picker import RARE_FRAMES, Pick, SamplePicker
from edge_node.update_states import InstallableRelease

RELEASE = InstallableRelease(
    version=3, digest="sha256:" + "0" * 64, bytes=1, labels=LabelSpace(names=("car", "forklift")), image_size=64
)
MODEL = RunningModel(RELEASE, predictor=None)  # type: ignore[arg-type]
PLACE = (40.0, 40.0, 80.0, 80.0)


def scene(seed: int, *, light: float = 1.0) -> Image:
    """A picture of its own for each seed, with the noise of a camera, which no two frames share."""
    blocks = np.random.default_rng(seed).integers(0, 200, (12, 16, 3)).astype(np.float32)
    image = cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_CUBIC) * light
    noise = np.random.default_rng().normal(0, 6, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


class Camera:
    """Gives a picker one frame a second, and collects what it picks."""

    def __init__(self, **settings: Any) -> None:
        values = {"interval_s": 1.0, "uncertain_below": 0.5, "random_share": 0.0, "random": Random(0), **settings}
        self.picker, self.now_s, self.picks = SamplePicker(**values), 0.0, list[Pick]()

    def see(self, image: Image, *found: tuple[float, int], name: str = "yard", every_s: float = 1.0) -> None:
        self.now_s += every_s
        scores, classes = [score for score, _ in found], [class_id for _, class_id in found]
        detections = Detections.of([PLACE] * len(found), scores, classes)
        self.picker.look_at(Result(int(self.now_s), name, self.now_s, image, detections, MODEL))
        if (pick := self.picker.take(self.now_s)) is not None:
            self.picks.append(pick)


def test_a_still_camera_hands_its_scene_over_once_whatever_the_noise_and_the_light() -> None:
    camera = Camera(random_share=0.5)
    for number in range(100):
        camera.see(scene(1, light=1.0 if number < 50 else 0.97), (0.3, 0))
    assert len(camera.picks) == 1
    with_a_car = scene(1)
    with_a_car[100:140, 100:170] = 250
    camera.see(with_a_car, (0.3, 0))
    assert len(camera.picks) == 2, "something came into the picture"
    camera.see(scene(1), (0.3, 0), name="gate")
    assert camera.picks[-1].result.camera == "gate", "another camera has scenes of its own"


def test_of_an_interval_the_frame_with_most_doubt_is_picked_and_sure_ones_are_not() -> None:
    camera = Camera(interval_s=10.0)
    camera.see(scene(0))
    for number, score in enumerate([0.9, 0.3, 0.48, 0.35, 0.99, 0.8, 0.7, 0.95, 0.9, 0.9], start=1):
        camera.see(scene(number), (score, 0))
    (pick,) = camera.picks
    assert (pick.result.number, pick.reasons) == (4, (SampleReason.UNCERTAIN,)) and pick.doubt > 0.99


def test_a_class_that_is_seldom_seen_is_picked_though_the_detector_is_sure() -> None:
    camera = Camera()
    for _ in range(RARE_FRAMES):
        camera.see(np.zeros((24, 24, 3), np.uint8), (0.95, 0))
    camera.see(scene(1000), (0.95, 1), (0.9, 0))
    assert [pick.reasons for pick in camera.picks] == [(SampleReason.RARE,)]


@pytest.mark.parametrize(("between", "every_s"), [([], 1.0), ([(0.8, 1)], 1.0), ([(0.9, 0)], 1.0), ([], 5.0)])
def test_an_object_that_is_missing_or_another_for_one_frame_is_picked(
    between: list[tuple[float, int]], every_s: float
) -> None:
    camera = Camera()
    for number, found in enumerate([[(0.9, 0)], between, [(0.9, 0)]]):
        camera.see(scene(number), *found, every_s=every_s)
    expected = [] if between == [(0.9, 0)] or every_s > 1 else [(SampleReason.INCONSISTENT,)]
    assert [pick.reasons for pick in camera.picks] == expected
    assert all(pick.result.captured_s == 2.0 for pick in camera.picks), "the frame between, which is in doubt"


def test_a_share_of_frames_is_drawn_at_random_from_all_frames() -> None:
    camera = Camera(interval_s=4.0, random_share=0.25, random=Random(3))
    random = np.random.default_rng(0)
    for number in range(800):
        camera.see(random.integers(0, 255, (24, 24, 3), np.uint8), (0.3 if number % 4 == 0 else 0.97, 0))
    drawn = [pick for pick in camera.picks if pick.reasons == (SampleReason.RANDOM,)]
    assert 30 < len(drawn) < 70 and len(camera.picks) > 190
    assert 0.55 < sum(pick.result.detections.scores[0] > 0.9 for pick in drawn) / len(drawn) < 0.95


def test_boxes_are_told_as_shares_of_the_image_and_cut_off_at_its_edge() -> None:
    found = Detections.of([[-20, 60, 160, 120], [400, 0, 500, 50]], [0.5, 0.4], [1, 0])
    (box,) = sample_boxes(Result(1, "yard", 0.0, scene(0), found, MODEL))
    assert (box.class_name, box.x, box.y, box.width, box.height) == ("forklift", 0.25, 0.375, 0.5, 0.25)
