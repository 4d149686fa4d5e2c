"""The gaps of several sites become one gap, which the cloud's tutor receives as if one site had sent it. No torch.

    gap = merge_gaps([Contribution("a", gap_a, 200), Contribution("b", gap_b, 80)], tutor.weights(), MergeRecipe())

A method is one function in a file beside this one and one line in MERGES. It sees only what every site has: the change
of weights that the base has too. Label spaces and the rows of new classes are joined here, once, for all methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from diredi.errors import InvalidInput
from diredi.knowledge.gap import Gap
from diredi.knowledge.merging.base import Contribution, Merge, MergeRecipe
from diredi.knowledge.merging.classes import aligned, common_note, joined, new_branches, new_rows
from diredi.knowledge.merging.mean import mean
from diredi.knowledge.merging.robust import clipped_mean, krum, median, trimmed_mean
from diredi.knowledge.merging.task_vectors import dare, task_arithmetic, ties
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
"""Merging rules by the name that a `MergeRecipe` calls them; put your own beside them."""

AGAINST_LIARS: Final = frozenset({"median", "trimmed_mean", "clipped_mean", "krum"})
"""Methods that are chosen against liars: rows of new classes are then merged by their median."""

__all__ = ["MERGES", "Contribution", "Merge", "MergeRecipe", "check_method", "merge_gaps"]


def check_method(recipe: MergeRecipe) -> None:
    """Raises InvalidInput with the methods that there are."""
    if recipe.method not in MERGES:
        raise InvalidInput(f"there is no merge method {recipe.method!r}: use {', '.join(sorted(MERGES))}")


def merge_gaps(
    contributions: Sequence[Contribution],
    base: WeightMap,
    recipe: MergeRecipe | Mapping[str, Any] | None = None,
) -> Gap:
    """Merge the gaps of several sites into one, which the tutor receives as if one site had sent it.

    Args:
        contributions: The gap of each site with the number of images that taught it. Their order is of no matter, and
            none is changed.
        base: Weights of the model that the gaps were extracted from.
        recipe: Which method of `MERGES`, and its options; a mapping holds those that differ from `MergeRecipe()`.

    Returns:
        One gap for the base, in the label space that holds the classes of all. Rows of a new class are the mean (or the
        median, where the method is chosen against liars) of those of the sites that were taught it.

    Raises:
        InvalidInput: The method is unknown or needs more gaps, or the gaps do not fit the base or each other.

    Example:
        >>> import diredi
        >>> ours = [diredi.Contribution(name, one.tutor, one.metrics.train_images)
        ...         for name, one in sites.items()]                               # doctest: +SKIP
        >>> gap = diredi.merge_gaps(ours, tutor.weights(), {"method": "ties"})    # doctest: +SKIP
    """
    recipe = MergeRecipe.of(recipe)
    check_method(recipe)
    ours = sorted(contributions, key=lambda one: one.site)
    note = common_note(ours, base)
    images = sum(one.images for one in ours)
    known = MERGES[recipe.method](aligned(ours, base), [one.images / images for one in ours], recipe)
    robust = recipe.method in AGAINST_LIARS
    rows = new_rows(ours, base, note, robust)
    weights = WeightMap({**joined(known, rows), **new_branches(ours, base, note, rows, robust)})
    weights.check_finite()
    return Gap(weights, note)
