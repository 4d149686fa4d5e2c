"""A new student: the site's own, or one that the updated tutor teaches on what the cloud owns.

The cloud has no picture of a new class, so no figure of its own can tell whether a student still knows it. What it can
tell is harm to what it knows. So a recipe ranks the candidates, and the first that does no harm is taken; what no
candidate needs before it is neither collected nor trained:

    gap          the old student and the site's student gap, as the site has measured it
    redistilled  that one (or, without a student gap, the old one), taught by the updated tutor on the cloud's images
    mean         half-way between the two, weight by weight
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diredi.data.dataset import Dataset
from diredi.detectors.base import Detector, Outputs
from diredi.detectors.spec import DetectorSpec, for_each
from diredi.distillation.batches import Pool
from diredi.distillation.distil import distil
from diredi.distillation.recipe import TrainRecipe
from diredi.evaluation.detection import evaluate
from diredi.evaluation.false_alarms import false_alarms
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.gap import Gap, apply, compute
from diredi.knowledge.gap_application import apply_gap
from diredi.knowledge.quieting import loudness_of, quieted
from diredi.knowledge.recipe import CycleRecipe, Lam, StudentKind
from diredi.knowledge.reverse import seeded
from diredi.labels import LabelSpace
from diredi.progress import OnProgress, renamed
from diredi.store.weights import WeightMap

SHARE_OF_HARM = 0.95
"""Of the harm that may be done: the gate measures the exported file, which is another by a hair."""
MOST_COUNTED = 400
"""Training images of the guard on which false alarms of new classes are counted."""


@dataclass(frozen=True)
class RedistilledStudent:
    """The next student, and which candidate it is."""

    model: Detector
    chosen: StudentKind
    before: DetectionMetrics
    """The old student, on the guard's held-out images."""
    after: DetectionMetrics
    """The new one."""
    candidates: dict[StudentKind, DetectionMetrics]
    """Every candidate that was looked at, in the recipe's order."""
    lam: Lam | None
    """The share of the student gap, where there was one."""
    harmless: bool
    """Whether the harm is within the recipe's tolerances; if none was, this is the candidate that did least."""
    false_alarms: float = 0.0
    """How often it finds new classes on 100 held-out images of the guard, which show none."""
    quieted: float = 0.0
    """By how many logits its scores of new classes were lowered, because of training images of the guard."""


def redistil(
    student: Detector,
    tutor: Detector,
    gap: Gap | None = None,
    *,
    guard: Dataset,
    pools: Callable[[], Sequence[Pool]] | None = None,
    recipe: CycleRecipe | Mapping[str, Any] | None = None,
    checkpoints: Path | None = None,
    on_progress: OnProgress | None = None,
) -> RedistilledStudent:
    """Choose the next student: the first candidate in the recipe's order that does no harm to what it knows.

    A candidate that finds new classes on training images of the guard, which show none, gets lower scores of these.
    Candidates are "gap", the old student with the site's student gap; "redistilled", that one (or, without a gap, the
    old one) taught by the updated tutor; and "mean", half-way between the two. What no candidate needs before the
    chosen one is neither collected nor trained.

    Args:
        student: The deployed student. It is not changed.
        tutor: The updated tutor, whose label space the new student gets. It is not changed.
        gap: The student's gap, of one site or merged; None leaves "redistilled" alone.
        guard: Data that must not get worse, such as the manufacturer's: `val` is measured.
        pools: Images for the updated tutor to teach on, with the ids of its label space; asked once at most, for
            collecting them may take time. None: `train` of the guard.
        recipe: How to choose and to learn; a mapping holds the options that differ from `CycleRecipe()`.
        checkpoints: A folder in which the training keeps where it is; None keeps nothing.
        on_progress: Hears of the steps "student" and "redistil".

    Returns:
        The new student with the metrics of every candidate; where all do harm, the one that does least.

    Raises:
        InvalidInput: The gap does not fit the student, or the guard has no labelled boxes.
        DatasetError: An image cannot be read.

    Examples:
        >>> import diredi
        >>> new = diredi.redistil(student, updated.model, gaps.student, guard=maker)  # doctest: +SKIP
        >>> new.chosen                                                                # doctest: +SKIP
        'gap'
    """
    recipe = CycleRecipe.of(recipe)
    labels = tutor.spec.labels
    guard = guard.with_labels(labels.expand(guard.names))
    applied = None
    if gap is not None:
        careful = recipe.model_copy(update={"max_harm": SHARE_OF_HARM * recipe.max_harm})
        applied = apply_gap(student, gap, guard=guard, recipe=careful, on_progress=renamed(on_progress, "student"))
    start = student if applied is None else applied.model

    @cache
    def redistilled() -> Detector:
        step, images = "redistil", [Pool(guard.train)] if pools is None else pools()
        if start.spec.branches or tutor.spec.branches:
            training = seeded(recipe.redistil_branch, recipe.seed)
            kept = checkpoints and checkpoints / step
            return _branch_by_branch(student.spec, start, tutor, images, training, kept, renamed(on_progress, step))
        return distil(
            start,
            images,
            teacher=tutor,
            recipe=seeded(recipe.redistil, recipe.seed),
            labels=tutor.spec.labels,
            checkpoint=checkpoints and checkpoints / step,
            on_progress=renamed(on_progress, step),
        )

    makers: dict[StudentKind, Callable[[], Detector]] = {
        "gap": lambda: start,
        "redistilled": redistilled,
        "mean": lambda: halfway(start, redistilled()),
    }
    before = evaluate(student, guard)
    new = [] if recipe.presumed_shows_new else labels.ids_of(labels.new_since(student.spec.labels))
    counted = guard.sample(MOST_COUNTED, recipe.seed).train
    candidates: dict[StudentKind, tuple[Detector, DetectionMetrics]] = {}
    alarms: dict[StudentKind, float] = {}
    lowered: dict[StudentKind, float] = {}
    for kind in recipe.students if applied is not None else ("redistilled",):
        model = makers[kind]()
        lowered[kind] = loudness_of(model, counted, new, recipe.max_false_alarms).by
        if lowered[kind]:
            model = quieted(model, new, lowered[kind])
        candidates[kind], alarms[kind] = (model, evaluate(model, guard)), false_alarms(model, guard.val, new)
        if _harmless(before, candidates[kind][1], alarms[kind], recipe):
            break
    else:
        kind = max(candidates, key=lambda name: candidates[name][1].map50)
    model, after = candidates[kind]
    return RedistilledStudent(
        model=model,
        chosen=kind,
        before=before,
        after=after,
        candidates={name: metrics for name, (_, metrics) in candidates.items()},
        lam=None if applied is None else applied.lam,
        harmless=_harmless(before, after, alarms[kind], recipe),
        false_alarms=alarms[kind],
        quieted=lowered[kind],
    )


def _branch_by_branch(
    old: DetectorSpec,
    start: Detector,
    tutor: Detector,
    images: Sequence[Pool],
    recipe: TrainRecipe,
    checkpoints: Path | None,
    on_progress: OnProgress | None,
) -> Detector:
    """The student's old branches, and a branch for each new one of the tutor, which teaches it; all else stands still.

    No image of the cloud shows what a branch has learned to find. What its neck makes of other images does teach it,
    but for classes that it finds in its own place alone: there the student keeps what its own gap has brought.
    """
    main, *parts = start.parts()
    made = main.expand_classes(tutor.spec.labels)
    known = Counter(_everywhere(old))  # a later cycle may have taught another branch for the same classes
    teachers: dict[tuple[int, ...], tuple[int, Detector]] = {}
    for number, (classes, teacher) in enumerate(zip(_everywhere(tutor.spec), tutor.parts()[1:], strict=True)):
        if known[classes]:
            known[classes] -= 1
        elif classes:
            teachers[classes] = number, teacher

    def taught(classes: tuple[int, ...], begin: Detector) -> Detector:
        number, teacher = teachers.pop(classes)
        return distil(
            begin,
            images,
            teacher=_Branch(teacher, classes),
            recipe=recipe,
            labels=tutor.spec.labels,
            checkpoint=checkpoints and checkpoints / str(number),
            on_progress=on_progress,
        )

    mine = zip(start.spec.branches, _everywhere(start.spec), start.routers(), parts, strict=True)
    for number, (classes, everywhere, router, part) in enumerate(mine):
        if number < len(old.branches) or not everywhere:
            made = made.with_branch(part, classes, router)
        elif everywhere in teachers:
            made = made.with_branch(taught(everywhere, part), classes, router)
    for classes in list(teachers):
        made = made.with_branch(taught(classes, main), classes)
    return made


def _everywhere(spec: DetectorSpec) -> list[tuple[int, ...]]:
    """For each branch the classes for which it speaks not only in its own place."""
    routed = for_each(spec.routed, spec.branches)
    return [tuple(one for one in ids if one not in some) for ids, some in zip(spec.branches, routed, strict=True)]


class _Branch:
    """A branch as a teacher of the classes that it speaks for, and of no other."""

    def __init__(self, detector: Detector, classes: Sequence[int]) -> None:
        names = tuple(detector.spec.labels.names[kind] for kind in classes)
        self._detector, self._classes = detector, torch.tensor(classes, device=detector.device)
        self.spec = detector.spec.model_copy(update={"labels": LabelSpace(names=names)})
        self.device = detector.device

    def weights(self) -> WeightMap:
        return self._detector.weights()

    def forward(self, images: Tensor) -> Outputs:
        said = self._detector.forward(images)
        return replace(said, class_logits=said.class_logits.index_select(-1, self._classes))


def _harmless(before: DetectionMetrics, after: DetectionMetrics, alarms: float, recipe: CycleRecipe) -> bool:
    return before.map50 - after.map50 <= recipe.max_harm and alarms <= recipe.max_false_alarms


def halfway(a: Detector, b: Detector) -> Detector:
    """Return the mean of two detectors that share a start; variances are averaged as `policy` says.

    Args:
        a: One of them.
        b: The other; it may have branches that the first has not, which stay as they are.
    """
    mean = b.expand_classes(b.spec.labels)
    mine, theirs = a.weights(), b.weights()
    shared = WeightMap({name: theirs[name] for name in mine})
    mean.load_weights(WeightMap({**theirs, **apply(mine, compute(shared, mine, mine), 0.5)}))
    return mean
