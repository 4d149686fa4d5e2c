"""The gap meets the cloud's tutor: how much of it, by `lambdas`, on the gate's data and the sites' scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from diredi.data.dataset import Sample
from diredi.detectors import registry
from diredi.detectors.base import Detector, Predictor
from diredi.distillation.batches import Batches, Pool
from diredi.distillation.recipe import Augment, TrainRecipe
from diredi.evaluation.detection import evaluate
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.gap import Gap, apply
from diredi.knowledge.lambda_search import Score, Shares, budget, said, search, shares_of
from diredi.knowledge.recipe import SECTIONS, CycleRecipe, Lam
from diredi.labels import LabelSpace

OnProgress = Callable[[float, str], None]
"""on_progress(fraction 0..1, one short line)."""


@dataclass(frozen=True)
class Presumed:
    """What the cloud has: class ids are those of `labels`."""

    labels: LabelSpace
    train: Sequence[Sample]
    val: Sequence[Sample]

    def figures(self, detector: Predictor) -> DetectionMetrics:
        """On the held-out half."""
        return evaluate(detector, self.val, self.labels)


@dataclass(frozen=True)
class Tried:
    """One lambda, and what it did on presumed data."""

    lam: Lam
    figures: DetectionMetrics


@dataclass(frozen=True)
class Applied:
    detector: Detector
    lam: Lam
    before: DetectionMetrics
    after: DetectionMetrics
    tried: list[Tried]
    harmless: bool
    """Whether the harm is within the recipe's tolerance; if none was, this is the lambda that did least."""


def apply_gap(
    base: Detector,
    gap: Gap,
    presumed: Presumed,
    recipe: CycleRecipe,
    on_progress: OnProgress,
    scores: Sequence[Sequence[Score]] = (),
) -> Applied:
    """`base` with as much of the gap as `lambdas.search` finds; rows of new classes come whole.

    `scores` are those of each site. `base` is not changed. Raises InvalidInput when the gap is not one for it.
    """
    gap.check_fits(base.weights().schema())
    before = presumed.figures(base)
    measured: dict[tuple[float, ...], Tried] = {}

    def tried(shares: Shares) -> Tried:
        key = tuple(shares[section] for section in SECTIONS)
        if key not in measured:
            figures = presumed.figures(_updated(base, gap, said(shares), recipe, presumed.train))
            measured[key] = Tried(said(shares), figures)
            on_progress(len(measured) / budget(recipe), f"lambda {said(shares)}: mAP50 {figures.map50:.3f}")
        return measured[key]

    def harm(shares: Shares) -> float:
        return before.map50 - tried(shares).figures.map50

    shares = search(recipe, scores, harm)
    chosen = tried(shares)
    detector = _updated(base, gap, chosen.lam, recipe, presumed.train)
    harmless = harm(shares) <= recipe.max_harm
    return Applied(detector, chosen.lam, before, chosen.figures, list(measured.values()), harmless)


def scored(
    tutor: Detector,
    gap: Gap,
    figures: Callable[[Detector], DetectionMetrics],
    coreset: Sequence[Sample],
    recipe: CycleRecipe,
    on_progress: OnProgress,
) -> list[Score]:
    """What each candidate lambda would do at a site, by the site's own `figures`: the cloud has no such images.

    Nothing where the cloud would not ask, or where the site cannot know: statistics that the cloud will measure again
    take presumed images, and a site without a coreset has none.
    """
    blind = recipe.batch_norm == "re-estimate" and not coreset
    if recipe.lam is not None or recipe.lam_search == "harmless" or blind:
        return []
    scores: list[Score] = []
    for lam in recipe.lam_candidates:
        scores.append(Score(lam=lam, figures=figures(_updated(tutor, gap, lam, recipe, coreset))))
        share = len(scores) / len(recipe.lam_candidates)
        on_progress(share, f"lambda {lam:g}: mAP50 {scores[-1].figures.map50:.3f}")
    return scores


def with_gap(base: Detector, gap: Gap, lam: Lam) -> Detector:
    """A copy of `base` in the gap's label space."""
    spec = base.spec.model_copy(update={"labels": gap.note.labels})
    shares: Mapping[str, float] = {str(section): share for section, share in shares_of(lam).items()}
    by_name = {name: shares[base.section_of(name)] for name in gap.weights}
    return registry.from_weights(spec, apply(base.weights(), gap.weights, by_name), base.device)


def _updated(base: Detector, gap: Gap, lam: Lam, recipe: CycleRecipe, presumed: Sequence[Sample]) -> Detector:
    detector = with_gap(base, gap, lam)
    if recipe.batch_norm == "re-estimate":
        re_estimate(detector, presumed)
    return detector


def re_estimate(detector: Detector, samples: Sequence[Sample], steps: int = 20) -> None:
    """Measures the batch-norm statistics again on `samples`, as the mean over `steps` batches. Changes nothing else."""
    norms = [layer for layer in detector.module.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [layer.momentum for layer in norms]
    still = Augment(mirror=0, scale=0, shift=0, brightness=0, contrast=0, saturation=0, noise=0)
    size, classes = detector.spec.image_size, len(detector.spec.labels)
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a plain mean over all batches
        layer.train()
    with torch.no_grad():
        for batch in Batches([Pool(samples)], TrainRecipe(steps=steps, augment=still), size, classes):
            detector.forward(batch.images.to(detector.device))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
