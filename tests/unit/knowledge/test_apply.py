"""How much of a gap a tutor gets, and what a student may become, judged by presumed data alone."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import World
from shapes import GROWN, KNOWN

from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.errors import InvalidInput
from diredi.knowledge.apply import Presumed, apply_gap, re_estimate
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.redistil import halfway, redistil
from diredi.store.weights import WeightMap


def presumed(world: World) -> Presumed:
    data = world.presumed.mapped_to(GROWN)
    return Presumed(GROWN, data.train, data.val)


def gap_of(base: Detector, change: float) -> Gap:
    """A gap that spoils: noise of `change` times each weight's own spread, and some rows for the new class."""
    random = np.random.default_rng(0)
    after = base.grown(GROWN).weights()

    def noisy(name: str, array: np.ndarray) -> np.ndarray:
        if "running" in name:
            return array
        return (array + change * array.std() * random.standard_normal(array.shape)).astype(np.float32)

    weights = base.weights()
    gap = compute(after.mapped(noisy), weights, weights)
    return Gap(gap, GapNote(base_id="sha256:00", labels=GROWN, base_classes=len(KNOWN)))


def silent(*_: object) -> None:
    pass


def test_the_largest_lambda_that_does_no_harm_is_taken(world: World) -> None:
    base = world.detector()
    recipe = CycleRecipe.of({"lam_candidates": [1, 0.5, 0.01], "max_harm": 0.02})
    applied = apply_gap(base, gap_of(base, 1.0), presumed(world), recipe, silent)
    assert applied.lam == 0.01
    assert [one.lam for one in applied.tried] == [1, 0.5, 0.01]
    assert applied.tried[0].figures.map50 < applied.before.map50 - 0.02
    assert applied.harmless
    assert applied.detector.spec.labels == GROWN


def test_a_gap_that_only_does_harm_is_told_apart(world: World) -> None:
    base = world.detector()
    recipe = CycleRecipe.of({"lam": 1.0, "max_harm": 0.02})
    applied = apply_gap(base, gap_of(base, 1.0), presumed(world), recipe, silent)
    assert not applied.harmless
    assert applied.lam == 1.0


def test_the_base_is_not_changed_by_a_gap(world: World) -> None:
    base, before = world.detector(), world.detector().weights()
    apply_gap(base, gap_of(base, 0.1), presumed(world), CycleRecipe(lam=1.0), silent)
    assert (base.weights() - before).norm() == 0.0


def test_a_gap_for_another_base_never_reaches_a_detector(world: World) -> None:
    gap = Gap(WeightMap({"other": np.zeros(1, np.float32)}), gap_of(world.detector(), 0).note)
    with pytest.raises(InvalidInput, match="other"):
        apply_gap(world.detector(), gap, presumed(world), CycleRecipe(), silent)


def test_statistics_measured_again_bring_a_detector_back_whose_own_are_wrong(world: World) -> None:
    detector = world.detector()
    good = presumed(world).figures(detector)
    weights = detector.weights()
    detector.load_weights(weights.mapped(lambda name, a: a * 0 + 1 if name.endswith("running_var") else a))
    assert presumed(world).figures(detector).map50 < good.map50 / 2
    re_estimate(detector, world.presumed.train)
    assert presumed(world).figures(detector).map50 > good.map50 - 0.1
    parameters = [n for n in weights if "running" not in n and "tracked" not in n]
    assert all(np.array_equal(detector.weights()[name], weights[name]) for name in parameters)


def test_half_way_between_a_detector_and_itself_is_itself(world: World) -> None:
    detector = world.detector()
    assert (halfway(detector, detector).weights() - detector.weights()).norm() < 1e-4


SHORT = {"redistil": {"steps": 2, "batch": 4}, "max_harm": 0.02}


def test_the_first_candidate_that_does_no_harm_is_taken(world: World) -> None:
    old = world.detector()
    recipe = CycleRecipe.of({**SHORT, "students": ["gap", "redistilled"]})
    made = redistil(old, old.grown(GROWN), gap_of(old, 0.0), presumed(world), [], recipe, silent)
    assert (made.chosen, made.lam, made.harmless) == ("gap", 1.0, True)
    assert list(made.candidates) == ["gap"]


def test_where_every_candidate_does_harm_the_least_is_taken_and_said(world: World) -> None:
    old = world.detector()
    recipe = CycleRecipe.of({**SHORT, "students": ["gap", "redistilled"], "lam": 1.0})
    pools = [Pool(presumed(world).train)]
    made = redistil(old, old.grown(GROWN), gap_of(old, 1.0), presumed(world), pools, recipe, silent)
    assert not made.harmless
    assert set(made.candidates) == {"gap", "redistilled"}
    assert made.after.map50 == max(figures.map50 for figures in made.candidates.values())


def test_without_a_student_gap_the_old_student_is_taught(world: World) -> None:
    old = world.detector()
    pools = [Pool(presumed(world).train)]
    made = redistil(old, old.grown(GROWN), None, presumed(world), pools, CycleRecipe.of(SHORT), silent)
    assert made.chosen == "redistilled"
    assert made.lam is None
    assert made.detector.spec.labels == GROWN
