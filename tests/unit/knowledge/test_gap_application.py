"""How much of a gap a tutor gets, by presumed data and the sites' scores, and what a student may become."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from shapes import GROWN, KNOWN, World

from diredi.data.dataset import Dataset
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.knowledge.gap_application import apply_gap, re_estimate, scored, with_gap
from diredi.knowledge.merging import Contribution, MergeRecipe, merge_gaps
from diredi.knowledge.recipe import SECTIONS, CycleRecipe, Section
from diredi.knowledge.redistil import halfway, redistil
from diredi.knowledge.weight_kinds import kind_of
from diredi.store.weights import WeightMap


def presumed(world: World) -> Dataset:
    return world.presumed.with_labels(GROWN)


def quality(detector: Detector, data: Dataset) -> float:
    return evaluate(detector, data).map50


def gap_of(base: Detector, change: float) -> Gap:
    """A gap that spoils: noise of `change` times each weight's own spread, and some rows for the new class."""
    random = np.random.default_rng(0)
    after = base.expand_classes(GROWN).weights()

    def noisy(name: str, array: np.ndarray) -> np.ndarray:
        if "running" in name:
            return array
        return (array + change * array.std() * random.standard_normal(array.shape)).astype(np.float32)

    weights = base.weights()
    gap = compute(after.mapped(noisy), weights, weights)
    return Gap(gap, GapNote(base_id="sha256:00", labels=GROWN, base_classes=len(KNOWN)))


def learned(weights: WeightMap) -> Gap:
    return Gap(weights, GapNote(base_id="sha256:00", labels=GROWN, base_classes=len(KNOWN)))


@pytest.mark.slow
def test_the_largest_lambda_that_does_no_harm_is_taken(world: World) -> None:
    base = world.detector()
    recipe = CycleRecipe.of({"lam_candidates": [1, 0.5, 0.01], "max_harm": 0.02})
    applied = apply_gap(base, gap_of(base, 1.0), guard=presumed(world), recipe=recipe)
    assert applied.lam == 0.01
    assert [one.lam for one in applied.tried] == [1, 0.5, 0.01]
    assert applied.tried[0].metrics.map50 < applied.before.map50 - 0.02
    assert applied.harmless
    assert applied.model.spec.labels == GROWN


def test_a_gap_that_only_does_harm_is_told_apart(world: World) -> None:
    base = world.detector()
    recipe = CycleRecipe.of({"lam": 1.0, "max_harm": 0.02})
    applied = apply_gap(base, gap_of(base, 1.0), guard=presumed(world), recipe=recipe)
    assert not applied.harmless
    assert applied.lam == 1.0


def test_the_base_is_not_changed_by_a_gap(world: World) -> None:
    base, before = world.detector(), world.detector().weights()
    apply_gap(base, gap_of(base, 0.1), guard=presumed(world), recipe=CycleRecipe(lam=1.0))
    assert (base.weights() - before).norm() == 0.0


def test_a_gap_for_another_base_never_reaches_a_detector(world: World) -> None:
    gap = Gap(WeightMap({"other": np.zeros(1, np.float32)}), gap_of(world.detector(), 0).note)
    with pytest.raises(InvalidInput, match="other"):
        apply_gap(world.detector(), gap, guard=presumed(world), recipe=CycleRecipe())


def test_statistics_measured_again_bring_a_detector_back_whose_own_are_wrong(world: World) -> None:
    detector = world.detector()
    good = evaluate(detector, presumed(world))
    weights = detector.weights()
    detector.load_weights(weights.mapped(lambda name, a: a * 0 + 1 if name.endswith("running_var") else a))
    assert quality(detector, presumed(world)) < good.map50 / 2
    re_estimate(detector, world.presumed.train)
    assert quality(detector, presumed(world)) > good.map50 - 0.1
    parameters = [n for n in weights if "running" not in n and "tracked" not in n]
    after = detector.weights()
    assert all(np.array_equal(after[name], weights[name]) for name in parameters)


@pytest.mark.slow
def test_statistics_that_no_site_sent_are_measured_for_the_merged_tutor(world: World) -> None:
    base, data = world.detector(), presumed(world)
    sent = world.gap().selected(lambda name: not kind_of(name, "float32").is_statistic)
    sites = [Contribution(f"site-{share}", learned(sent * share), 48) for share in (1.0, 0.5)]
    gap = merge_gaps(sites, base.weights(), MergeRecipe())
    kept, again = (
        apply_gap(base, gap, guard=data, recipe=CycleRecipe.of({"lam": 1.0, "batch_norm": option}))
        for option in ("keep", "re-estimate")
    )
    by_hand = with_gap(base, gap, 1.0)
    re_estimate(by_hand, data.train)
    assert (again.model.weights() - by_hand.weights()).norm() == 0.0
    assert again.after.map50 > kept.after.map50


SECTIONS_ALONE = [{section: float(section == alone) for section in SECTIONS} for alone in SECTIONS]


@pytest.mark.parametrize("lam", SECTIONS_ALONE)
def test_a_lambda_for_one_section_leaves_the_others_bit_for_bit_and_new_rows_whole(
    world: World, lam: dict[Section, float]
) -> None:
    base = world.detector()
    gap = gap_of(base, 0.5)
    known, part, whole = (one.weights() for one in (base, with_gap(base, gap, lam), with_gap(base, gap, 1.0)))
    for name in known:
        if known[name].ndim == 0:  # a counter, which no gap holds
            continue
        rows, kept = len(known[name]), lam[base.section_of(name)] == 0  # type: ignore[index]
        assert np.array_equal(part[name][:rows], known[name] if kept else whole[name][:rows])
        assert np.array_equal(part[name][rows:], whole[name][rows:])


@pytest.mark.slow
def test_a_site_scores_what_the_cloud_will_have(world: World) -> None:
    base = world.detector()
    gap = gap_of(base, 1.0)
    recipe = CycleRecipe.of({"lam_search": "two-axes", "lam_candidates": [1, 0.01]})
    scores = scored(base, gap, partial(evaluate, data=presumed(world)), [], recipe)
    assert [score.lam for score in scores] == [1, 0.01]
    assert [score.metrics for score in scores] == [
        evaluate(with_gap(base, gap, lam), presumed(world)) for lam in (1.0, 0.01)
    ]


@pytest.mark.parametrize("unasked", [{"lam": 1.0}, {"lam_search": "harmless"}, {"batch_norm": "re-estimate"}])
def test_a_site_scores_nothing_that_nobody_asks_or_that_it_cannot_know(
    world: World, unasked: dict[str, object]
) -> None:
    base = world.detector()
    recipe = CycleRecipe.of({"lam_search": "two-axes", **unasked})
    assert scored(base, gap_of(base, 0.1), partial(evaluate, data=presumed(world)), [], recipe) == []


@pytest.mark.slow
def test_a_site_that_has_learned_scores_more_of_its_gap_higher_and_gets_the_best_that_is_harmless(
    world: World,
) -> None:
    base, data = world.detector(), presumed(world)
    site = world.site.with_labels(GROWN)
    gap = learned(world.gap())
    recipe = CycleRecipe.of({"lam_search": "two-axes", "lam_candidates": [1, 0.5, 0.01], "max_harm": 0.1})
    scores = scored(base, gap, partial(evaluate, data=site), [], recipe)
    gain = {score.lam: score.metrics.map50 for score in scores}
    whole, hundredth = (score.metrics.map50_95 for score in scores if score.lam in (1, 0.01))
    assert whole > hundredth + 0.1
    applied = apply_gap(base, gap, guard=data, recipe=recipe, scores=[scores])
    harmless = [lam for lam in gain if applied.before.map50 - quality(with_gap(base, gap, lam), data) <= 0.1]
    assert applied.harmless == bool(harmless)
    if harmless:
        assert applied.lam == max(harmless, key=gain.__getitem__)


def test_half_way_between_a_detector_and_itself_is_itself(world: World) -> None:
    detector = world.detector()
    assert (halfway(detector, detector).weights() - detector.weights()).norm() < 1e-4


SHORT = {"redistil": {"steps": 2, "batch": 4}, "max_harm": 0.02}


def no_images() -> list[Pool]:
    raise AssertionError("nobody is to be taught")


@pytest.mark.slow
def test_the_first_candidate_that_does_no_harm_is_taken(world: World) -> None:
    old = world.detector()
    recipe = CycleRecipe.of({**SHORT, "students": ["gap", "redistilled"]})
    made = redistil(
        old, old.expand_classes(GROWN), gap_of(old, 0.0), guard=presumed(world), pools=no_images, recipe=recipe
    )
    assert (made.chosen, made.lam, made.harmless) == ("gap", 1.0, True)
    assert list(made.candidates) == ["gap"]


@pytest.mark.slow
def test_where_every_candidate_does_harm_the_least_is_taken_and_said(world: World) -> None:
    old = world.detector()
    recipe = CycleRecipe.of({**SHORT, "students": ["gap", "redistilled"], "lam": 1.0})
    pools = [Pool(presumed(world).train)]
    made = redistil(
        old, old.expand_classes(GROWN), gap_of(old, 1.0), guard=presumed(world), pools=lambda: pools, recipe=recipe
    )
    assert not made.harmless
    assert set(made.candidates) == {"gap", "redistilled"}
    assert made.after.map50 == max(metrics.map50 for metrics in made.candidates.values())


def test_without_a_student_gap_the_old_student_is_taught(world: World) -> None:
    old = world.detector()
    pools = [Pool(presumed(world).train)]
    made = redistil(
        old, old.expand_classes(GROWN), None, guard=presumed(world), pools=lambda: pools, recipe=CycleRecipe.of(SHORT)
    )
    assert made.chosen == "redistilled"
    assert made.lam is None
    assert made.model.spec.labels == GROWN
