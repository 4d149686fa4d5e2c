"""How much of a gap: the rules of the search for lambda, without a detector. `apply` measures what they ask for.

Two axes. Harm is what the cloud sees: mAP50 that a lambda costs on presumed images. Gain is what a site sees: its
`Score` of the same lambda on its own held-out images, which comes with the gap. No gain buys harm: a site only ranks
the lambdas, so that one which lies gets a harmless lambda of its choice and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.recipe import SECTIONS, CycleRecipe, Lam, Section

Shares = Mapping[Section, float]
"""Lambda of every section."""
Harm = Callable[[Shares], float]
"""mAP50 on presumed images before the gap, minus after: below 0 where the gap does good."""
RISING: tuple[Section, ...] = ("head", "neck", "backbone")
"""From the section that is nearest to what a new class needs to the one that all classes share."""


class Score(BaseModel):
    """What a site has measured of one lambda: its tutor with that share of its gap, on its own held-out images."""

    model_config = ConfigDict(frozen=True)

    lam: float
    metrics: DetectionMetrics


class TriedLambda(BaseModel):
    """One lambda, and the metrics of the updated model on data that must not get worse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lam: Lam
    """The share of the gap: one number, or one for each section."""
    metrics: DetectionMetrics


def shares_of(lam: Lam) -> Shares:
    """Return lambda for every section."""
    return dict(lam) if isinstance(lam, Mapping) else dict.fromkeys(SECTIONS, lam)


def said(shares: Shares) -> Lam:
    """One number where all sections have the same."""
    lams = set(shares.values())
    return lams.pop() if len(lams) == 1 else dict(shares)


def ranked(recipe: CycleRecipe, sites: Sequence[Sequence[Score]]) -> tuple[float, ...]:
    """`lam_candidates`, best first: by gain where the recipe asks for it and a site has scored them, else by size.

    The gain of a lambda is the mean of the sites' mAP50, weighted by their held-out images; a site without scores has
    no say. What not every other one has scored comes last.
    """
    speaking = [{score.lam: score.metrics for score in scores} for scores in sites if scores]
    if recipe.lam_search == "harmless" or not speaking:
        return recipe.lam_candidates

    def gain(lam: float) -> float:
        if not all(lam in scores for scores in speaking):
            return -1.0
        weight = sum(max(scores[lam].images, 1) for scores in speaking)
        return sum(max(scores[lam].images, 1) * scores[lam].map50 for scores in speaking) / weight

    return tuple(sorted(recipe.lam_candidates, key=lambda lam: (gain(lam), lam), reverse=True))


def first_harmless(order: Sequence[float], harm: Harm, tolerance: float) -> float:
    """The first of `order` whose harm is within `tolerance`; where none is, the one that does least.

    Asks for at most len(order) measurements.
    """
    harms: dict[float, float] = {}
    for lam in order:
        harms[lam] = harm(shares_of(lam))
        if harms[lam] <= tolerance:
            return lam
    return min(harms, key=harms.__getitem__)


def risen(start: Shares, better: Sequence[float], harm: Harm, tolerance: float) -> Shares:
    """`start` with each section, in turn, at the first of the `better` lambdas that does no harm beside the others.

    Asks for at most 3 * len(better) measurements, each of one section changed. What it returns does no harm if `start`
    does none.
    """
    found = dict(start)
    for section in RISING:
        for lam in better:
            trial = {**found, section: lam}
            if harm(trial) <= tolerance:
                found = trial
                break
    return found


def search(recipe: CycleRecipe, sites: Sequence[Sequence[Score]], harm: Harm) -> Shares:
    """What `recipe` says of lambda: the one it names, or the one that is found. At most `budget` measurements."""
    if recipe.lam is not None:
        return shares_of(recipe.lam)
    order = ranked(recipe, sites)
    lam = first_harmless(order, harm, recipe.max_harm)
    found = shares_of(lam)
    if recipe.lam_sections and harm(found) <= recipe.max_harm:
        return risen(found, order[: order.index(lam)], harm, recipe.max_harm)
    return found


def budget(recipe: CycleRecipe) -> int:
    """The most measurements that `search` asks for, each of them once."""
    if recipe.lam is not None:
        return 1
    candidates = len(recipe.lam_candidates)
    return candidates + (len(SECTIONS) * (candidates - 1) if recipe.lam_sections else 0)
