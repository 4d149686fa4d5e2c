"""A new student: the site's own, or one that the updated tutor teaches on what the cloud owns.

The cloud has no picture of a new class, so no figure of its own can tell whether a student still knows it. What it can
tell is harm to what it knows. So a recipe ranks the candidates, and the first that does no harm is taken; what no
candidate needs before it is neither collected nor trained:

    gap          the old student and the site's student gap, as the site has measured it
    redistilled  that one (or, without a student gap, the old one), taught by the updated tutor on the cloud's images
    mean         half-way between the two, weight by weight
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.trainer import train
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.gap import Gap, apply, compute
from diredi.knowledge.gap_application import Presumed, apply_gap
from diredi.knowledge.recipe import CycleRecipe, Lam, StudentKind

OnProgress = Callable[[str, float, str], None]
"""on_progress(step, fraction 0..1, one short line)."""


@dataclass(frozen=True)
class Redistilled:
    detector: Detector
    chosen: StudentKind
    before: DetectionMetrics
    after: DetectionMetrics
    candidates: dict[StudentKind, DetectionMetrics]
    """Presumed figures of every candidate that was looked at, in the recipe's order."""
    lam: Lam | None
    """The share of the student gap, where there was one."""
    harmless: bool


def redistil(
    old: Detector,
    tutor: Detector,
    gap: Gap | None,
    presumed: Presumed,
    pools: Callable[[], Sequence[Pool]],
    recipe: CycleRecipe,
    on_progress: OnProgress,
    checkpoints: Path | None = None,
) -> Redistilled:
    """The first candidate in the recipe's order that does no harm; where all do, the one that does least.

    `checkpoints`: a folder in which the training keeps where it is, as `train` does.
    `pools` is asked once at most: collecting images takes time.
    `old` and `tutor` are not changed. Raises InvalidInput when the gap is not one for `old`.
    """
    applied = None
    if gap is not None:
        applied = apply_gap(old, gap, presumed, recipe, _step(on_progress, "student"))
    start = old.expand_classes(tutor.spec.labels) if applied is None else applied.detector

    @cache
    def redistilled() -> Detector:
        taught = start.expand_classes(tutor.spec.labels)
        training = recipe.redistil.model_copy(update={"seed": recipe.seed})
        checkpoint = checkpoints and checkpoints / "redistil"
        progress = _step(on_progress, "redistil")
        train(taught, pools(), training, teacher=tutor, on_progress=progress, checkpoint=checkpoint)
        return taught

    makers: dict[StudentKind, Callable[[], Detector]] = {
        "gap": lambda: start,
        "redistilled": redistilled,
        "mean": lambda: halfway(start, redistilled()),
    }
    before = presumed.figures(old)
    candidates: dict[StudentKind, tuple[Detector, DetectionMetrics]] = {}
    for kind in recipe.students if applied is not None else ("redistilled",):
        detector = makers[kind]()
        candidates[kind] = detector, presumed.figures(detector)
        if before.map50 - candidates[kind][1].map50 <= recipe.max_harm:
            break
    else:
        kind = max(candidates, key=lambda name: candidates[name][1].map50)
    detector, after = candidates[kind]
    return Redistilled(
        detector=detector,
        chosen=kind,
        before=before,
        after=after,
        candidates={name: figures for name, (_, figures) in candidates.items()},
        lam=None if applied is None else applied.lam,
        harmless=before.map50 - after.map50 <= recipe.max_harm,
    )


def halfway(a: Detector, b: Detector) -> Detector:
    """The mean of two detectors that share a start; variances are averaged as `policy` says."""
    mean = a.expand_classes(a.spec.labels)
    weights = a.weights()
    mean.load_weights(apply(weights, compute(b.weights(), weights, weights), 0.5))
    return mean


def _step(on_progress: OnProgress, step: str) -> Callable[[float, str], None]:
    return lambda fraction, message: on_progress(step, fraction, message)
