"""A camera that changes is noticed within 200 frames, and one that does not is left in peace for days."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from diredi.detectors.predictor import Detections
from diredi.labels import LabelSpace
from edge_node.active_model import RunningModel
from edge_node.drift import CameraDrift, DriftSignal, DriftWatch, FrameSignals
from edge_node.inference import Result
from edge_node.thumbnail import CELLS
from edge_node.update_states import InstallableRelease

MONDAY = 1_700_000_000.0
DAY_S = 86_400.0
RELEASE = InstallableRelease(
    version=1, digest="sha256:" + "0" * 64, bytes=1, labels=LabelSpace(names=("car",)), image_size=64
)


class Street:
    """Signals of a camera at a street: traffic that comes in waves, light that goes with the sun and with clouds."""

    def __init__(self, seed: int, *, light: float = 110.0, traffic: float = 5.0, confidence: float = 0.7) -> None:
        self.random = np.random.default_rng(seed)
        self.picture = np.random.default_rng(seed + 99).normal(0, 35, (CELLS * CELLS, 1)).astype(np.float32)
        self.light, self.traffic, self.confidence = light, traffic, confidence
        self.cloud = self.wave = 0.0

    def frame(self, at_s: float) -> FrameSignals:
        self.cloud += 0.002 * -self.cloud + self.random.normal(0, 0.3)
        self.wave += 0.02 * -self.wave + self.random.normal(0, 0.06)
        sun = np.cos(2 * np.pi * (at_s - MONDAY) / DAY_S)
        light = np.float32(self.light + 30 * sun + self.cloud)
        thumbnail = np.clip(self.picture + light, 0, 255) + np.array([4.0, 0.0, -4.0], np.float32)
        boxes = int(self.random.poisson(self.traffic * np.exp(self.wave)))
        sure = np.clip(self.confidence + self.random.normal(0, 0.15), 0.26, 0.99)
        doubtful = int(self.random.binomial(boxes, float(np.clip(1.2 - 1.5 * sure, 0, 1))))
        return FrameSignals(thumbnail.astype(np.float32), boxes, float(sure) * boxes, doubtful)


def watch(camera: CameraDrift, street: Street, begin_s: float, frames: int, every_s: float, release: str = "1") -> int:
    """Let a camera see a street; return after how many frames it has drifted, or 0."""
    for number in range(frames):
        at_s = begin_s + number * every_s
        camera.add(street.frame(at_s), at_s, release)
        if camera.drift is not None:
            return number + 1
    return 0


@pytest.mark.slow
def test_an_unchanged_camera_gives_no_alarm_in_two_days_with_sun_clouds_and_rush_hours() -> None:
    assert watch(CameraDrift(), Street(0), MONDAY, 14_000, 2 * DAY_S / 14_000) == 0
    assert watch(CameraDrift(), Street(1, traffic=0.3), MONDAY, 10_000, 0.2) == 0


def changes() -> Iterator[tuple[Street, set[DriftSignal]]]:
    street = Street(0)
    yield Street(0, light=25.0), {DriftSignal.LIGHT, DriftSignal.SCENE, DriftSignal.CONTRAST}
    yield Street(5), {DriftSignal.SCENE}
    yield Street(0, confidence=0.4), {DriftSignal.CONFIDENCE, DriftSignal.DOUBT}
    yield Street(0, traffic=60.0), {DriftSignal.BOXES}
    yield Street(0, traffic=0.0), {DriftSignal.BOXES}
    covered = Street(0)
    covered.picture = street.picture * 0
    yield covered, {DriftSignal.CONTRAST, DriftSignal.SCENE}


@pytest.mark.parametrize(("changed", "signals"), changes())
def test_a_change_is_noticed_within_200_frames_and_lasts_until_it_is_over(
    changed: Street, signals: set[DriftSignal]
) -> None:
    camera, street = CameraDrift(), Street(0)
    assert watch(camera, street, MONDAY, 2017, 1.0) == 0
    assert 0 < watch(camera, changed, MONDAY + 2017, 200, 1.0) <= 200
    assert camera.drift is not None and camera.drift.signal in signals
    for number in range(2000):
        camera.add(changed.frame(MONDAY + 2217), MONDAY + 2217 + number, "1")
        assert camera.drift is not None, "it does not get used to it"
    for number in range(400):
        camera.add(street.frame(MONDAY + 4217), MONDAY + 4217 + number, "1")
    assert camera.drift is None


@pytest.mark.slow
def test_the_night_is_an_alarm_once_and_known_from_the_second_day_on() -> None:
    camera, alarms = CameraDrift(), [0, 0]
    night, street = Street(0, light=20.0), Street(0, light=120.0)
    for hour in range(48):
        for number in range(600):
            at_s = MONDAY + hour * 3600 + number * 6
            camera.add((street if hour % 24 < 12 else night).frame(MONDAY), at_s, "1")
            alarms[hour // 24] += camera.drift is not None
    assert alarms[0] > 5000 and alarms[1] == 0


def test_a_new_release_begins_with_no_opinion_about_what_it_finds() -> None:
    camera, street = CameraDrift(), Street(0)
    watch(camera, street, MONDAY, 2000, 1.0)
    assert watch(camera, Street(0, confidence=0.4), MONDAY + 2000, 1000, 1.0, release="2") == 0


def test_baselines_survive_a_restart_and_a_damaged_file(tmp_path: Path) -> None:
    record, random = tmp_path / "drift.json", np.random.default_rng(0)
    model = RunningModel(RELEASE, predictor=None)  # type: ignore[arg-type]

    def result(number: int, light: int) -> Result:
        image = np.clip(random.normal(light, 20, (48, 48, 3)), 0, 255).astype(np.uint8)
        found = Detections.of([[0, 0, 9, 9]], [0.8], [0])
        return Result(number, "yard", MONDAY + number, image, found, model)

    first = DriftWatch(record, doubtful_below=0.5)
    for number in range(1000):
        first.look_at(result(number, 120))
    first.save()
    again = DriftWatch(record, doubtful_below=0.5)
    again.start_from_disk()
    for number in range(1000, 1200):
        again.look_at(result(number, 30))
    assert again.drifts["yard"].signal is DriftSignal.LIGHT
    assert "camera yard has changed: light is 3" in again.problem
    record.write_text("{")
    empty = DriftWatch(record, doubtful_below=0.5)
    empty.start_from_disk()
    assert not empty.problem
