"""The gaps of several sites become one gap, which the cloud's tutor receives as if one site had sent it. No torch.

    gap = merge_gaps([Contribution("a", gap_a, 200), Contribution("b", gap_b, 80)], tutor.weights(), MergeRecipe())

A method is one function in a file beside this one and one line in MERGES. It sees only what every site has: the change
of weights that the base has too. Label spaces and the rows of new classes are joined here, once, for all methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from diredi.errors import InvalidInput
from diredi.knowledge.gap import Gap
from diredi.knowledge.merging.base import Contribution, Merge, MergeRecipe
from diredi.knowledge.merging.classes import aligned, common_note, joined, new_rows
from diredi.knowledge.merging.clipped_mean import clipped_mean
from diredi.knowledge.merging.dare import dare
from diredi.knowledge.merging.krum import krum
from diredi.knowledge.merging.mean import mean
from diredi.knowledge.merging.median import median
from diredi.knowledge.merging.task_arithmetic import task_arithmetic
from diredi.knowledge.merging.ties import ties
from diredi.knowledge.merging.trimmed_mean import trimmed_mean
from diredi.knowledge.merging.union import union
from diredi.store.weights import WeightMap

MERGES: Final[dict[str, Merge]] = {
    "union": union,
    "mean": mean,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare": dare,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "clipped_mean": clipped_mean,
    "krum": krum,
}
"""Every method to merge the gaps of several sites, by its name in `MergeRecipe.method`."""

AGAINST_LIARS: Final = frozenset({"median", "trimmed_mean", "clipped_mean", "krum"})
"""Methods that are chosen against liars: rows of new classes are then merged by their median."""

__all__ = ["MERGES", "Contribution", "Merge", "MergeRecipe", "check_method", "merge_gaps"]


def check_method(recipe: MergeRecipe) -> None:
    """Raises InvalidInput with the methods that there are."""
    if recipe.method not in MERGES:
        raise InvalidInput(f"there is no merge method {recipe.method!r}: use {', '.join(sorted(MERGES))}")


def merge_gaps(contributions: Sequence[Contribution], base: WeightMap, recipe: MergeRecipe) -> Gap:
    """One gap for `base` in the label space that holds the classes of all. The order of `contributions` is of no
    matter, and none is changed.

    Raises InvalidInput: an unknown method, too few gaps for it, a gap that is not one for `base`, gaps for different
    bases, a number that is none.
    """
    check_method(recipe)
    ours = sorted(contributions, key=lambda one: one.site)
    note = common_note(ours, base)
    images = sum(one.images for one in ours)
    known = MERGES[recipe.method](aligned(ours, base), [one.images / images for one in ours], recipe)
    weights = joined(known, new_rows(ours, base, note, recipe.method in AGAINST_LIARS))
    weights.check_finite()
    return Gap(weights, note)
