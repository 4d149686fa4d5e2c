"""The search for lambda on tables of harm and gain: which one is taken, and how many measurements that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.lambda_search import Score, Shares, budget, ranked, said, search, shares_of
from diredi.knowledge.recipe import SECTIONS, CycleRecipe

LAMS = (1.0, 0.8, 0.6, 0.4, 0.2)


def recipe(**options: object) -> CycleRecipe:
    return CycleRecipe.of({"lam_candidates": LAMS, "max_harm": 0.01, "lam_search": "two-axes", **options})


def site(gains: Mapping[float, float], images: int = 100) -> list[Score]:
    def metrics(map50: float) -> DetectionMetrics:
        rest = {"map50_95": 0.0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "per_class": {}}
        return DetectionMetrics(map50=map50, images=images, **rest)

    return [Score(lam=lam, metrics=metrics(gain)) for lam, gain in gains.items()]


class Counted:
    """The harm of shares by a rule, and what was asked for."""

    def __init__(self, rule: Callable[[Shares], float]) -> None:
        self.rule, self.asked = rule, []

    def __call__(self, shares: Shares) -> float:
        if dict(shares) not in self.asked:
            self.asked.append(dict(shares))
        return self.rule(shares)


def table(harms: Mapping[float, float]) -> Counted:
    return Counted(lambda shares: harms[shares["head"]])


RISING_HARM = {1.0: 0.09, 0.8: 0.03, 0.6: 0.005, 0.4: 0.0, 0.2: -0.01}
BEST_IN_THE_MIDDLE = {1.0: 0.5, 0.8: 0.6, 0.6: 0.4, 0.4: 0.45, 0.2: 0.3}


def test_without_scores_the_largest_harmless_lambda_is_taken() -> None:
    harm = table(RISING_HARM)
    assert search(recipe(), [], harm) == shares_of(0.6)
    assert harm.asked == [shares_of(lam) for lam in (1.0, 0.8, 0.6)]


def test_with_scores_the_harmless_lambda_that_the_site_likes_best_is_taken() -> None:
    harm = table(RISING_HARM)
    assert search(recipe(), [site(BEST_IN_THE_MIDDLE)], harm) == shares_of(0.4)
    assert harm.asked == [shares_of(lam) for lam in (0.8, 1.0, 0.4)]


def test_no_gain_buys_harm() -> None:
    gains = dict.fromkeys(LAMS, 0.0) | {1.0: 1.0}
    assert search(recipe(), [site(gains)], table(RISING_HARM)) == shares_of(0.6)


def test_equal_gains_are_settled_by_size() -> None:
    assert ranked(recipe(), [site(dict.fromkeys(LAMS, 0.5))]) == LAMS


def test_where_every_lambda_does_harm_the_least_is_taken() -> None:
    harms = {1.0: 0.5, 0.8: 0.2, 0.6: 0.04, 0.4: 0.03, 0.2: 0.05}
    assert search(recipe(), [site(BEST_IN_THE_MIDDLE)], table(harms)) == shares_of(0.4)
    assert search(recipe(lam_sections=True), [], table(harms)) == shares_of(0.4)


def test_sites_are_weighed_by_their_images() -> None:
    likes_much, likes_little = {1.0: 0.9, 0.2: 0.5}, {1.0: 0.5, 0.2: 0.7}
    both = recipe(lam_candidates=(1.0, 0.2))
    assert ranked(both, [site(likes_much, 100), site(likes_little, 100)]) == (1.0, 0.2)
    assert ranked(both, [site(likes_much, 100), site(likes_little, 300)]) == (0.2, 1.0)


def test_a_site_that_sends_no_scores_has_no_say() -> None:
    assert ranked(recipe(), [[], site(BEST_IN_THE_MIDDLE)]) == ranked(recipe(), [site(BEST_IN_THE_MIDDLE)])
    assert ranked(recipe(), [[], []]) == LAMS


def test_a_lambda_that_one_site_has_not_scored_comes_last() -> None:
    order = ranked(recipe(), [site(BEST_IN_THE_MIDDLE), site({0.4: 0.1, 0.2: 0.2})])
    assert order == (0.4, 0.2, 1.0, 0.8, 0.6)


def test_scores_are_not_looked_at_where_the_recipe_does_not_ask() -> None:
    assert ranked(recipe(lam_search="harmless"), [site(BEST_IN_THE_MIDDLE)]) == LAMS


@pytest.mark.parametrize("lam", [0.7, {"backbone": 0.1, "neck": 0.5, "head": 1.0}])
def test_a_lambda_that_is_named_is_taken_whatever_it_costs(lam: object) -> None:
    harm = Counted(lambda shares: 1.0)
    assert said(search(recipe(lam=lam), [], harm)) == lam
    assert harm.asked == []


def additive(limit: Mapping[str, float]) -> Counted:
    """A section does harm only beyond its limit."""
    return Counted(lambda shares: sum(max(shares[s] - limit[s], 0.0) for s in SECTIONS))


def test_sections_rise_as_far_as_each_does_no_harm() -> None:
    harm = additive({"backbone": 0.2, "neck": 0.6, "head": 1.0})
    assert search(recipe(lam_sections=True), [], harm) == {"backbone": 0.2, "neck": 0.6, "head": 1.0}
    assert search(recipe(), [], harm) == shares_of(0.2)


def test_a_section_rises_only_to_what_the_site_likes_better() -> None:
    harm = additive({"backbone": 0.4, "neck": 1.0, "head": 1.0})
    found = search(recipe(lam_sections=True), [site(BEST_IN_THE_MIDDLE)], harm)
    assert found == {"backbone": 0.4, "neck": 0.8, "head": 0.8}


@pytest.mark.parametrize("sections", [False, True])
@pytest.mark.parametrize("candidates", [(1.0,), (1.0, 0.5), LAMS])
def test_a_search_never_measures_more_than_its_budget(candidates: tuple[float, ...], sections: bool) -> None:
    told = recipe(lam_candidates=candidates, lam_sections=sections)
    for tolerated in (1.0, *candidates, 0.0):
        harm = Counted(lambda shares, tolerated=tolerated: max(shares.values()) - tolerated)
        search(told, [], harm)
        assert len(harm.asked) <= budget(told)
    assert budget(recipe(lam=1.0)) == 1
