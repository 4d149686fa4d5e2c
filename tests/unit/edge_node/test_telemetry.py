"""What a node counts of each release, for the cloud to judge a rollout by."""

from __future__ import annotations

import pytest

from edge_node.telemetry import SCORES, ReleaseCounts, Telemetry


def test_each_release_is_counted_apart_and_its_confidence_is_that_of_its_newest_boxes() -> None:
    telemetry = Telemetry()
    for _ in range(3):
        telemetry.record_frame(0.01, "front", ["car"] * 2, release=1, scores=[0.9, 0.7])
    telemetry.record_dropped(2)
    telemetry.record_frame(0.01, "front", release=2)
    assert telemetry.of_release(1) == ReleaseCounts(3, 0, 6, pytest.approx(0.8))
    assert telemetry.of_release(2) == ReleaseCounts(2, 1, 0, 0.0)
    assert telemetry.of_release(3) == ReleaseCounts()
    telemetry.record_frame(0.01, "front", release=2, scores=[0.1] * 10 + [0.5] * SCORES)
    assert telemetry.of_release(2) == ReleaseCounts(3, 1, SCORES, pytest.approx(0.5))
    assert (telemetry.rates().frames, telemetry.rates().dropped) == (5, 1)
