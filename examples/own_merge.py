"""A merging rule of your own: one function, one line in MERGES, and its name in a recipe."""

from collections.abc import Sequence

from world import models, quick, scenes

import diredi


def first_site_decides(
    gaps: Sequence[diredi.WeightMap], weights: Sequence[float], recipe: diredi.MergeRecipe
) -> diredi.WeightMap:
    """Take the first site's change, and half of what the others would add to it."""
    merged = gaps[0]
    for gap in gaps[1:]:
        merged = merged + (gap - gaps[0]) * (0.5 / len(gaps))
    return merged


diredi.MERGES["first_site_decides"] = first_site_decides

maker, (tutor, student) = scenes("presumed"), models()
recipe = {"form": "weights", "tutor": quick(epochs=4), "student_gap": False}
sent = []
for name in ("site-1", "site-2"):
    gaps = diredi.extract_gap(tutor, student, scenes(name), coreset=maker.sample(50), recipe=recipe)
    sent.append(diredi.Contribution(name, gaps.tutor, gaps.metrics.train_images))
    print(f"{name} teaches {', '.join(gaps.tutor.note.taught_classes) or 'no new class'}")

for method in ("first_site_decides", "union"):
    gap = diredi.merge_gaps(sent, tutor.weights(), {"method": method})
    updated = diredi.apply_gap(tutor, gap, guard=maker, recipe={"lam_candidates": [1.0, 0.5]})
    print(f"{method:20} lambda {updated.lam}, {updated.after}")
