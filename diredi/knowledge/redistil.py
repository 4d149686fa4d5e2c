"""A new student from the updated tutor, on what the cloud owns, with or without a student-sized gap from the site.

The cloud has no picture of a new class, so no figure of its own can tell whether a student still knows it. What it has
is the site's student (the old one and its gap), which the site has measured. So that one goes first, and what is
taught further in the cloud may only replace it if it stays near to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.trainer import train
from diredi.evaluation.figures import Figures
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import seeded

OnProgress = Callable[[str, float, str], None]


@dataclass(frozen=True)
class Candidate:
    detector: Detector
    presumed: Figures


def taught_by(
    tutor: Detector,
    student: Detector,
    pools: Sequence[Pool],
    recipe: CycleRecipe,
    on_progress: Callable[[float, str], None],
) -> Detector:
    """A copy of `student`, in the tutor's label space, that the tutor has taught on `pools`."""
    taught = student.grown(tutor.spec.labels)
    train(taught, pools, seeded(recipe.redistil, recipe.seed), teacher=tutor, on_progress=on_progress)
    return taught
