"""By how much scores of new classes must fall, from a few images that show none of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diredi.evaluation.false_alarms import RUNNING_CONFIDENCE
from diredi.knowledge.quieting import loudness

RUNNING = math.log(RUNNING_CONFIDENCE / (1 - RUNNING_CONFIDENCE))
LOWEST = math.log(0.01 / 0.99)


def scores(images: int, per_100: float, seed: int, scale: float = 1.0) -> list[float]:
    """False detections, of which so many on 100 images reach the running confidence in the long run."""
    random = np.random.default_rng(seed)
    many = images * per_100 / 100 * math.exp((RUNNING - LOWEST) / scale)
    logits = LOWEST + random.exponential(scale, random.poisson(many))
    return [1 / (1 + math.exp(-one)) for one in logits]


def left(images: int, per_100: float, seed: int, scale: float = 1.0) -> float:
    """False alarms on 100 images, in the long run, after the scores have fallen."""
    return per_100 * math.exp(loudness(scores(images, per_100, seed, scale), images, most=5).by / scale)


@pytest.mark.parametrize("scale", [0.7, 1.3])
@pytest.mark.parametrize("per_100", [16.0, 60.0])
def test_ten_images_are_enough_to_find_a_loud_class(per_100: float, scale: float) -> None:
    """On ten images, 16 alarms in 100 are none at all in every fifth case."""
    after = [left(10, per_100, seed, scale) for seed in range(200)]
    assert np.mean(np.array(after) <= 5) > 0.7
    assert np.median(after) > 0.8, "and no more is taken than need be"


def test_a_quiet_class_stays_as_it_is() -> None:
    assert np.mean([left(19, 0.5, seed) == 0.5 for seed in range(100)]) > 0.85
    assert loudness([], 10, most=5).by == 0
    assert loudness([0.02], 10, most=5).by == 0


def test_many_images_are_counted() -> None:
    after = [left(400, 16.0, seed) for seed in range(50)]
    assert np.mean(after) == pytest.approx(2.5, abs=0.5)
    assert loudness(scores(400, 16.0, 0), 400, most=5).per_100 == pytest.approx(16, abs=6)


def test_none_may_be_means_none_on_these_images() -> None:
    found = scores(50, 40.0, seed=3)
    by = loudness(found, 50, most=0).by
    assert max(math.log(one / (1 - one)) for one in found) + by < RUNNING
