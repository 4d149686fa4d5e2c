"""From a site's images to the two gaps that may leave it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from diredi.data.dataset import Dataset
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.distil import distil
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import check_losses, check_pair
from diredi.errors import DatasetError, InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.adaptation import (
    MOST_LISTED,
    Plan,
    choose_classes,
    choose_router,
    followed,
    hold_back,
    make_plan,
    quiet,
)
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.knowledge.gap_application import scored
from diredi.knowledge.gaps import Decision, ExtractionMetrics, Gaps
from diredi.knowledge.lambda_search import Score
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import SiteData, distil_student, labelled_names, reverse_distil, teach_branch
from diredi.labels import LabelSpace
from diredi.progress import OnProgress, renamed
from diredi.store.files import atomic_write, make_folder, read_state
from diredi.store.weights import WeightMap
from diredi.timing import Clock


def extract_gap(
    tutor: Detector,
    student: Detector,
    site: Dataset,
    *,
    coreset: Dataset | None = None,
    recipe: CycleRecipe | Mapping[str, Any] | None = None,
    labels: LabelSpace | None = None,
    filled_in: Dataset | None = None,
    checkpoints: Path | None = None,
    on_progress: OnProgress | None = None,
    measure: Callable[..., DetectionMetrics] = evaluate,
) -> Gaps:
    """Distil a site's images into knowledge gaps: what a site uploads in place of its images.

    A copy of the tutor (tutor 2) learns the site's images from their labels and from the deployed student; the gap is
    `W(tutor 2) - W(tutor)`, or, with `reverse_distillations="two"` in the recipe, `W(tutor 2) - W(tutor 1)` as in the
    paper, where tutor 1 has learned the presumption alone. Then tutor 2 teaches a copy of the student, whose gap is
    `W(taught) - W(student)`. Classes of the site that the models do not know become new rows at the end of their heads;
    ids of known classes stay.

    Everything that can be checked is checked before the first training begins. The models run where they are (see
    `diredi.load`), at their own image size, and are not changed.

    Args:
        tutor: The detector at whose architecture knowledge is exchanged.
        student: The deployed detector, of the same image size and on the same device; its label space must be one that
            `labels` extends.
        site: The site's images: `train` to learn from, `val` to measure on. See `Dataset.renamed` where the site calls
            a known class by another name, and `pseudo_label` where it has no labels; the metrics then say that they are
            an estimate.
        coreset: A few presumed images to mix in, such as `maker.sample(200)`, so that old knowledge is not forgotten.
        recipe: How to learn and encode; a mapping holds the options that differ from the default `CycleRecipe()`, such
            as `{"tutor": {"epochs": 3}, "seed": 1}`.
        labels: The label space of the gaps; it must extend the tutor's. None: the tutor's, with the site's new classes
            at its end.
        filled_in: Images of the site that nobody has labelled, or not for known classes, with what an oracle finds
            there (`pseudo_label`). They say nothing of classes that it does not know; only its `train` is learned from.
        checkpoints: A folder in which each training keeps where it is, so that a second call of an interrupted
            extraction goes on; whoever names it deletes it. None: nothing is kept.
        on_progress: Hears of the steps "measure-before", "tutor-2", "tutor-1" (recipe "two"), "scores", "student-gap".

        measure: How models are measured on the site's held-out images; a site whose metrics leave it takes
            `diredi.evaluation.disclosure.for_disclosure`.

    Returns:
        The gaps as the cloud would decode them, with metrics on the site's held-out images.

    Raises:
        InvalidInput: Classes, image sizes or devices do not go together, or the recipe is not usable.
        DatasetError: A split is empty or has no boxes, or an image cannot be read.

    Examples:
        >>> import diredi
        >>> gaps = diredi.extract_gap(tutor, student, site, coreset=maker.sample(200))  # doctest: +SKIP
        >>> f"{len(gaps.tutor.to_bytes()):,} bytes"                                     # doctest: +SKIP
        '2,442,504 bytes'
    """
    recipe = CycleRecipe.of(recipe)
    labels = tutor.spec.labels.expand(site.names) if labels is None else labels
    check_models(tutor, student, coreset, recipe, labels)
    _check_labels(site, recipe)
    clock = Clock()
    data = SiteData.of(site, coreset, labels, recipe.presumed_shows_new, filled_in, tutor.spec.labels.names)
    quality = partial(measure, data=site)
    with clock.step("measure-before"):
        student_before = quality(student, on_progress=renamed(on_progress, "measure-before"))
    with clock.step("probe"):
        plan = _planned(checkpoints, lambda: make_plan(tutor, student, data, recipe, on_progress=on_progress))
    learner = (_WithBranches if plan.form == "branch" else _WithWeights)(data, recipe, plan, checkpoints, on_progress)
    with clock.step("reverse-distillation"):
        tutor_2, change = learner.reverse_distil(tutor, student)
    with clock.step("measure-tutor-2"):
        tutor_after = quality(tutor_2)
    tutor_gap = _as_it_travels(change, tutor, tutor_2, data, recipe)
    scores: list[Score] = []
    if plan.form == "weights":
        with clock.step("scores"):
            scores = scored(tutor, tutor_gap, quality, data.coreset.samples, recipe, on_progress=on_progress)
    student_gap = student_after = None
    if recipe.student_gap:
        with clock.step("student-gap"):
            taught, change = learner.distil_student(student, tutor_2)
        with clock.step("measure-student"):
            student_after = quality(taught)
        student_gap = _as_it_travels(change, student, taught, data, recipe)
    metrics = ExtractionMetrics(
        train_images=len(site.train),
        held_out_images=len(site.val),
        boxes=site.counts("train"),
        student_before=student_before,
        tutor_after=tutor_after,
        student_after=student_after,
        scores=tuple(scores),
        decisions=(*_about_labels(site, data, tutor), *plan.decisions, *learner.decisions),
        seconds=clock.seconds,
    )
    return Gaps(tutor_gap, student_gap, metrics)


@dataclass
class _Learner(ABC):
    """How tutor and student learn a site."""

    data: SiteData
    recipe: CycleRecipe
    plan: Plan
    checkpoints: Path | None
    on_progress: OnProgress | None
    decisions: list[Decision] = field(default_factory=list)

    @abstractmethod
    def reverse_distil(self, tutor: Detector, student: Detector) -> tuple[Detector, WeightMap]:
        """Return tutor 2 and the change of the tutor's weights."""

    @abstractmethod
    def distil_student(self, student: Detector, tutor_2: Detector) -> tuple[Detector, WeightMap]:
        """Return the site's own student and the change of the student's weights."""


@dataclass
class _WithWeights(_Learner):
    """All weights learn."""

    def __post_init__(self) -> None:
        self.recipe = self.recipe.model_copy(update={"tutor": self.plan.tutor, "student": self.plan.student})

    def reverse_distil(self, tutor: Detector, student: Detector) -> tuple[Detector, WeightMap]:
        kept, heard = self.checkpoints, self.on_progress
        return reverse_distil(tutor, student, self.data, self.recipe, checkpoints=kept, on_progress=heard)

    def distil_student(self, student: Detector, tutor_2: Detector) -> tuple[Detector, WeightMap]:
        kept, heard = self.checkpoints, self.on_progress
        return distil_student(student, tutor_2, self.data, self.recipe, checkpoints=kept, on_progress=heard)


@dataclass
class _WithBranches(_Learner):
    """A branch learns; all that is known stands still."""

    def __post_init__(self) -> None:
        self.learned, self.held = hold_back(self.data, self.recipe)

    def reverse_distil(self, tutor: Detector, student: Detector) -> tuple[Detector, WeightMap]:
        after = self._with_branch("tutor", "tutor-2", tutor, self.plan.tutor, self._new_to(tutor), None)
        return after, _change(tutor, after)

    def distil_student(self, student: Detector, tutor_2: Detector) -> tuple[Detector, WeightMap]:
        after = student.expand_classes(self.data.labels)
        if self.plan.fine_tuning is not None:
            after = self._fine_tuned(student, self.plan.fine_tuning)
        if self.plan.student is not None:
            new, teacher = self._new_to(student), tutor_2.parts()[-1]
            after = self._with_branch("student", "student-gap", after, self.plan.student, new, teacher)
        return after, _change(student, after)

    def _fine_tuned(self, student: Detector, training: TrainRecipe) -> Detector:
        step = "student-fine-tuning"
        tuned = distil(
            student,
            self.learned.pools,
            recipe=training,
            labels=self.data.labels,
            checkpoint=self.checkpoints and self.checkpoints / step,
            on_progress=renamed(self.on_progress, step),
        )
        self.decisions.append(followed(student, tuned, self.held))
        return tuned

    def _new_to(self, model: Detector) -> list[int]:
        labels = self.data.labels
        return list(labels.ids_of(labels.new_since(model.spec.labels)))

    def _with_branch(
        self,
        who: str,
        step: str,
        base: Detector,
        training: TrainRecipe,
        new: Sequence[int],
        teacher: Detector | None,
    ) -> Detector:
        kept, heard = self.checkpoints, self.on_progress
        data = replace(self.learned, coreset=Pool([])) if self.plan.routed else self.learned
        taught = teach_branch(step, base, data, training, teacher=teacher, checkpoints=kept, on_progress=heard)
        taught, lowered = quiet(who, taught, new, self.held, self.learned, self.recipe)
        classes, decision = choose_classes(who, base, taught, new, self.held, self.learned)
        self.decisions += [decision, *([lowered] if lowered else [])]
        router = None
        if self.recipe.router and (known := [kind for kind in classes if kind not in new]):
            needed = self.plan.routed
            router, decided = choose_router(who, base, known, self.held, self.learned, self.recipe, needed=needed)
            self.decisions.append(decided)
            if router is None and needed:
                classes = [kind for kind in classes if kind in new]
        return base.with_branch(taught, classes, router) if classes else base.expand_classes(self.data.labels)


def _change(before: Detector, after: Detector) -> WeightMap:
    weights = before.weights()
    return compute(after.weights(), weights, weights)


def _planned(checkpoints: Path | None, make: Callable[[], Plan]) -> Plan:
    """The plan of an extraction that was killed, or a new one, which is kept: clocks never say the same twice."""
    if checkpoints is None:
        return make()
    path = checkpoints / "plan.json"
    plan = read_state(path, Plan.model_validate_json)
    if plan is None:
        plan = make()
        make_folder(checkpoints)
        atomic_write(path, plan.model_dump_json())
    return plan


def _as_it_travels(change: WeightMap, base: Detector, after: Detector, data: SiteData, recipe: CycleRecipe) -> Gap:
    """Return the gap as the cloud will have it, codec and all."""
    known = base.spec.labels
    note = GapNote(
        base_id=base.digest,
        labels=data.labels,
        base_classes=len(known),
        taught=tuple(name for name in data.labels.new_since(known) if name in data.seen),
        branches=after.spec.branches,
        routed=after.spec.routed,
    )
    return Gap.from_bytes(Gap(change, note).to_bytes(recipe.codec))


def check_models(
    tutor: Detector, student: Detector, coreset: Dataset | None, recipe: CycleRecipe, labels: LabelSpace
) -> None:
    """Find what does not go together, whatever is on the site's images: told before an oracle looks at them.

    Args:
        tutor: As for `extract_gap`, and so are the others.
        student: The deployed detector.
        coreset: Presumed images.
        recipe: How to learn.
        labels: The label space of the gaps.

    Raises:
        InvalidInput: Classes, image sizes or devices do not go together, or the recipe is not usable.
    """
    for kind, model in (("tutor", tutor), ("student", student)):
        if not labels.extends(model.spec.labels):
            raise InvalidInput(
                f"the label space of the gap ({', '.join(labels.names)}) does not extend the {kind}'s "
                f"({', '.join(model.spec.labels.names)}): ids must keep their meaning, append new names at the end"
            )
    check_pair(student, tutor)
    for training in (recipe.tutor, recipe.student, recipe.branch, recipe.fine_tuning):
        if training is not None:
            check_losses(training)
    if coreset is not None:
        coreset.with_labels(labels)


def _about_labels(site: Dataset, data: SiteData, tutor: Detector) -> Iterator[Decision]:
    """Yield what is done about labels that are not there."""
    labelled = labelled_names(site)
    silent = [name for name in tutor.spec.labels.names if name in site.names and name not in labelled]
    if silent:
        some = ", ".join(silent[:MOST_LISTED]) + (
            f" and {len(silent) - MOST_LISTED} more" * (len(silent) > MOST_LISTED)
        )
        yield Decision(
            subject="labels",
            choice=f"say nothing of {some}",
            because="the site names them and has labelled none, so its images are not taken as showing none",
        )
    spoken = data.coreset.classes
    unlabelled = 0 if spoken is None else len([kind for kind in range(len(tutor.spec.labels)) if kind not in spoken])
    if unlabelled and data.coreset.samples:
        yield Decision(
            subject="labels of the coreset",
            choice=f"say nothing of {unlabelled} of {len(tutor.spec.labels)} classes that the tutor knows",
            because="the manufacturer has labelled none there, so its images are not taken as showing none",
        )
    few = len(data.private.samples)
    if data.repeats > 1:
        yield Decision(
            subject="images with labels",
            choice=f"{data.repeats} times in an epoch",
            because=f"there are {few}, beside {data.images - data.repeats * few} others",
        )


def _check_labels(site: Dataset, recipe: CycleRecipe) -> None:
    if recipe.labels == "oracle" and site.judged_by != "oracle":
        raise InvalidInput(
            "the recipe says labels=oracle, but the data set has other labels: let an oracle label it with "
            '`diredi.pseudo_label(..., splits=("train", "val"))`'
        )
    for split in ("train", "val"):
        if not any(len(sample.boxes) for sample in site.split(split)):
            raise DatasetError(
                f"`{split}` has no labelled boxes: a site needs some to learn from, some to measure on", site.root
            )
