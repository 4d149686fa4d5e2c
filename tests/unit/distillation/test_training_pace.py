"""A training keeps its limit on a machine that becomes slower, and ends at the lowest learning rate all the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from rectangles import recipe

from diredi.data.dataset import Sample
from diredi.detectors.base import Detector
from diredi.distillation.pace import Pace
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.progress import Progress

PLANNED = 100
FLOOR = 0.02


def walked(limit: float | None, seconds_of: Callable[[int], float]) -> tuple[list[float], float]:
    """The learning rate of each step that is made, and what all took."""
    pace = Pace(TrainRecipe(learning_rate=1.0, final_learning_rate=FLOOR, max_seconds=limit), PLANNED)
    rates: list[float] = []
    spent = 0.0
    while len(rates) < pace.steps:
        rates.append(pace.learning_rate(len(rates)))
        spent += seconds_of(len(rates))
        pace.keep(len(rates), spent)
    return rates, spent


def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    assert walked(150.0, lambda _: 1.0) == walked(None, lambda _: 1.0)
    assert walked(150.0, lambda _: 1.0)[0][-1] == pytest.approx(FLOOR, abs=1e-3)


@pytest.mark.parametrize("slower", [2, 5, 10])
def test_the_limit_is_kept_where_steps_become_slower(slower: int) -> None:
    rates, spent = walked(110.0, lambda step: 1.0 if step < 40 else float(slower))
    assert spent <= 110
    assert rates[-1] == pytest.approx(FLOOR, abs=1e-3)
    assert all(later < earlier for earlier, later in pairwise(rates[8:]))
    assert len(rates) >= 40 + 60 // slower, "and what time there is is used"


def test_one_step_that_waits_costs_no_more_than_it_takes() -> None:
    rates, spent = walked(110.0, lambda step: 30.0 if step == 50 else 1.0)
    assert spent <= 110
    assert len(rates) > 75


def test_a_machine_that_is_quick_again_makes_the_steps_after_all() -> None:
    rates, _ = walked(150.0, lambda step: 3.0 if 10 < step < 25 else 1.0)
    assert len(rates) == PLANNED


@pytest.mark.slow
def test_a_training_whose_steps_are_held_up_ends_in_its_time(
    make: Callable[..., Detector], shapes: tuple[list[Sample], list[Sample]]
) -> None:
    steps: list[float] = []

    def hold_up(_: Progress) -> None:
        if len(steps) > 4:
            time.sleep(0.05)  # a slower machine
        steps.append(time.monotonic())

    limit = 0.8
    report = train(make(), shapes[0][:4], recipe(steps=2000, batch=2, max_seconds=limit), on_progress=hold_up)
    longest = max(later - earlier for earlier, later in pairwise(steps))
    assert report.steps == len(steps) < 2000
    assert report.seconds < limit + 2 * longest
