"""The gap meets the cloud's tutor: how much of it, decided on the gate's data alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from diredi.data.dataset import Sample
from diredi.detectors import registry
from diredi.detectors.base import Detector, Predictor
from diredi.distillation.batches import Batches, Pool
from diredi.distillation.recipe import Augment, TrainRecipe
from diredi.evaluation.detection import evaluate
from diredi.evaluation.figures import Figures
from diredi.knowledge.gap import Gap, apply
from diredi.knowledge.recipe import CycleRecipe
from diredi.labels import LabelSpace


@dataclass(frozen=True)
class Presumed:
    """What the cloud has: class ids are those of `labels`."""

    labels: LabelSpace
    train: Sequence[Sample]
    val: Sequence[Sample]

    def figures(self, detector: Predictor) -> Figures:
        """On the held-out half."""
        return evaluate(detector, self.val, self.labels)


@dataclass(frozen=True)
class Tried:
    """One lambda, and what it did on presumed data."""

    lam: float
    figures: Figures


@dataclass(frozen=True)
class Applied:
    detector: Detector
    lam: float
    before: Figures
    after: Figures
    tried: list[Tried]
    harmless: bool
    """Whether the harm is within the recipe's tolerance; if none was, this is the lambda that did least."""


def apply_gap(
    base: Detector, gap: Gap, presumed: Presumed, recipe: CycleRecipe, on_progress: Callable[[float, str], None]
) -> Applied:
    """`base` with the largest lambda whose harm on presumed data is within tolerance; rows of new classes come whole.

    `base` is not changed. Raises InvalidInput when the gap is not one for it.
    """
    gap.check_fits(base.weights().schema())
    lambdas = recipe.lam_candidates if recipe.lam is None else (recipe.lam,)
    before = presumed.figures(base)
    tried: list[Tried] = []
    best: tuple[Detector, Tried] | None = None
    for lam in lambdas:
        detector = with_gap(base, gap, lam)
        if recipe.batch_norm == "re-estimate":
            re_estimate(detector, presumed.train)
        tried.append(Tried(lam, presumed.figures(detector)))
        on_progress(len(tried) / len(lambdas), f"lambda {lam:g}: mAP50 {tried[-1].figures.map50:.3f}")
        if best is None or tried[-1].figures.map50 > best[1].figures.map50:
            best = detector, tried[-1]
        if before.map50 - tried[-1].figures.map50 <= recipe.max_harm:
            best = detector, tried[-1]
            break
    assert best is not None  # a recipe has at least one lambda
    detector, chosen = best
    harmless = before.map50 - chosen.figures.map50 <= recipe.max_harm
    return Applied(detector, chosen.lam, before, chosen.figures, tried, harmless)


def with_gap(base: Detector, gap: Gap, lam: float) -> Detector:
    """A copy of `base` in the gap's label space."""
    spec = base.spec.model_copy(update={"labels": gap.note.labels})
    return registry.from_weights(spec, apply(base.weights(), gap.weights, lam), base.device)


def re_estimate(detector: Detector, samples: Sequence[Sample], steps: int = 20) -> None:
    """Measures the batch-norm statistics again on `samples`, as the mean over `steps` batches. Changes nothing else."""
    norms = [layer for layer in detector.module.modules() if isinstance(layer, nn.BatchNorm2d)]
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
