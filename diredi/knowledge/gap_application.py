"""The gap meets the cloud's tutor: how much of it, by `lambdas`, on the gate's data and the sites' scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from diredi.data.dataset import Dataset, Sample
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.batches import Batches, Pool
from diredi.distillation.recipe import Augment, TrainRecipe
from diredi.evaluation.detection import evaluate
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.gap import Gap, apply, without_branches, without_routers
from diredi.knowledge.lambda_search import Score, Shares, TriedLambda, budget, said, search, shares_of
from diredi.knowledge.recipe import SECTIONS, CycleRecipe, Lam
from diredi.progress import OnProgress, report

STEP = "apply"


@dataclass(frozen=True)
class AppliedGap:
    """A model that has received a gap, and why with this lambda."""

    model: Detector
    """The updated model, in the gap's label space."""
    lam: Lam
    """The share of the gap that known weights received: one number, or one for each section."""
    before: DetectionMetrics
    """The model without the gap, on the guard's held-out images."""
    after: DetectionMetrics
    """With it."""
    tried: list[TriedLambda]
    """Every lambda that was measured."""
    harmless: bool
    """Whether the harm is within the recipe's tolerance; if none was, this is the lambda that did least."""
    silenced: tuple[str, ...] = ()
    """Known classes for which a new branch does not speak after all, because that would do harm."""


def apply_gap(
    tutor: Detector,
    gap: Gap,
    *,
    guard: Dataset,
    recipe: CycleRecipe | Mapping[str, Any] | None = None,
    scores: Sequence[Sequence[Score]] = (),
    on_progress: OnProgress | None = None,
) -> AppliedGap:
    """Add a knowledge gap to a model with the largest lambda that does no harm: `W(tutor) + lambda * gap`.

    Harm is what the guard sees: mAP50 on its held-out images before, minus after. The recipe names the candidates for
    lambda and the harm that may be done (`max_harm`), or one lambda to take unseen (`lam`). Rows of new classes come
    whole, whatever lambda is: half a new class is none. Variances of batch norm are multiplied by
    `exp(lambda * gap)`, so that they stay above zero. A new branch comes whole, too; it loses the known classes that it
    finds worse, the one that lost most first, until the rest does no harm. With a branch, lambda may be 0: it can bring
    what is new even where any change of what is known does harm.

    Args:
        tutor: What receives the gap: the model that it was extracted from, or one with the same weights by name and
            shape. It is not changed.
        gap: The gap of one site, or of several (`diredi.merge_gaps`).
        guard: Data that must not get worse, such as the manufacturer's: `val` is measured, `train` is where statistics
            are measured again if the recipe says so.
        recipe: How to choose lambda; a mapping holds the options that differ from `CycleRecipe()`.
        scores: What sites have measured of each candidate (`Gaps.metrics.scores`), one sequence for each site; heeded
            with `lam_search="two-axes"`.
        on_progress: Hears of the step "apply".

    Returns:
        The updated model with lambda and the metrics before and after.

    Raises:
        InvalidInput: The gap does not fit the model, or the guard has no labelled boxes.
        DatasetError: An image cannot be read.

    Examples:
        >>> import diredi
        >>> updated = diredi.apply_gap(tutor, gaps.tutor, guard=maker)       # doctest: +SKIP
        >>> updated.lam, updated.after.map50 - updated.before.map50          # doctest: +SKIP
        (0.6, 0.013)
    """
    recipe, base = CycleRecipe.of(recipe), tutor.weights()
    gap.check_fits(base.schema())
    if gap.leaves_known(base):
        recipe = recipe.model_copy(update={"lam": 1.0})
    elif gap.note.branches:
        recipe = recipe.model_copy(update={"lam_candidates": (*recipe.lam_candidates, 0.0)})
    guard = guard.with_labels(gap.note.labels.expand(guard.names))
    before = evaluate(tutor, guard)
    measured: dict[tuple[float, ...], TriedLambda] = {}

    def tried(shares: Shares) -> TriedLambda:
        key = tuple(shares[section] for section in SECTIONS)
        if key not in measured:
            metrics = evaluate(_updated(tutor, gap, said(shares), recipe, guard.train), guard)
            measured[key] = TriedLambda(lam=said(shares), metrics=metrics)
            message = f"lambda {said(shares)}: mAP50 {metrics.map50:.3f}"
            report(on_progress, STEP, len(measured) / budget(recipe), message)
        return measured[key]

    def harm(shares: Shares) -> float:
        return before.map50 - tried(shares).metrics.map50

    chosen = tried(search(recipe, scores, harm))
    model, after = _updated(tutor, gap, chosen.lam, recipe, guard.train), chosen.metrics
    silenced: list[str] = []
    while before.map50 - after.map50 > recipe.max_harm and (worst := _worst_of_branches(tutor, gap, before, after)):
        silenced.append(worst)
        gap = _without(gap, worst, len(tutor.spec.branches))
        model = _updated(tutor, gap, chosen.lam, recipe, guard.train)
        after = evaluate(model, guard)
        report(on_progress, STEP, 1.0, f"without {worst} in the branch: mAP50 {after.map50:.3f}")
    return AppliedGap(
        model=model,
        lam=chosen.lam,
        before=before,
        after=after,
        tried=list(measured.values()),
        harmless=before.map50 - after.map50 <= recipe.max_harm,
        silenced=tuple(silenced),
    )


def _worst_of_branches(tutor: Detector, gap: Gap, before: DetectionMetrics, after: DetectionMetrics) -> str | None:
    """The known class of a new branch that has lost most on the guard's images, if one has lost."""
    known = tutor.spec.labels.names
    ids = {kind for branch in gap.note.branches[len(tutor.spec.branches) :] for kind in branch if kind < len(known)}
    losses = {
        known[kind]: before.per_class[known[kind]].ap50 - after.per_class[known[kind]].ap50
        for kind in sorted(ids)
        if known[kind] in before.per_class
    }
    worst = max(losses, key=losses.__getitem__, default=None)
    return worst if worst is not None and losses[worst] > 0 else None


def _without(gap: Gap, name: str, old_branches: int) -> Gap:
    """The gap with new branches that do not speak for a class."""
    kind = gap.note.labels.id_of(name)

    def kept(ids: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
        new = (tuple(one for one in branch if one != kind) for branch in ids[old_branches:])
        return (*ids[:old_branches], *new)

    branches, routed = kept(gap.note.branches), kept(gap.note.routed)
    note = gap.note.model_copy(update={"branches": branches, "routed": routed})
    unheard = {number for number, branch in enumerate(branches) if not branch}
    unrouted = {number for number, ids in enumerate(routed) if not ids} - unheard
    return without_branches(without_routers(Gap(gap.weights, note), unrouted), unheard)


def scored(
    tutor: Detector,
    gap: Gap,
    metrics: Callable[[Detector], DetectionMetrics],
    coreset: Sequence[Sample],
    recipe: CycleRecipe,
    *,
    on_progress: OnProgress | None = None,
) -> list[Score]:
    """Measure what each candidate lambda would do at a site, by the site's own `figures`: the cloud has no such images.

    Nothing is measured where the cloud would not ask, or where the site cannot know: statistics that the cloud will
    measure again take presumed images, and a site without a coreset has none.
    """
    blind = recipe.batch_norm == "re-estimate" and not coreset
    if recipe.lam is not None or recipe.lam_search == "harmless" or blind:
        return []
    scores: list[Score] = []
    for lam in recipe.lam_candidates:
        scores.append(Score(lam=lam, metrics=metrics(_updated(tutor, gap, lam, recipe, coreset))))
        share = len(scores) / len(recipe.lam_candidates)
        report(on_progress, "scores", share, f"lambda {lam:g}: mAP50 {scores[-1].metrics.map50:.3f}")
    return scores


def with_gap(base: Detector, gap: Gap, lam: Lam) -> Detector:
    """A copy of `base` in the gap's label space."""
    note = gap.note if gap.note.branches else base.spec
    spec = base.spec.with_branches(gap.note.labels, note.branches, note.routed)
    shares: Mapping[str, float] = {str(section): share for section, share in shares_of(lam).items()}
    weights = base.weights()
    by_name = {name: shares[base.section_of(name)] for name in gap.weights if name in weights}
    return registry.from_weights(spec, apply(weights, gap.weights, by_name), base.device)


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
        images = [replace(sample, boxes=sample.boxes[:0]) for sample in samples]
        for batch in Batches([Pool(images)], TrainRecipe(steps=steps, augment=still), size, classes):
            detector.forward(batch.images.to(detector.device))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
