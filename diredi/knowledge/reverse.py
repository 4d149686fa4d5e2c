"""Reverse distillation at the site: the deployed student teaches tutors, and the site's labels teach tutor 2.

    tutor 2 learns the site's images and labels, with the coreset of presumed data mixed in;
    tutor 1 learns the presumption: the same start, recipe, seed, order and number of images, without the site's labels.

In tutor 1's list every image of the site is replaced, in its place, by what stands for the presumption, and the
coreset stands where it stands for tutor 2. So what the two see in common they see in the same step and in the same
shape, and it cancels in the gap; on equal data the gap is exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from diredi.data.dataset import SPLITS, Dataset, Sample
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.distil import distil
from diredi.distillation.ensemble import pseudo_label
from diredi.distillation.recipe import TrainRecipe
from diredi.errors import InvalidInput
from diredi.knowledge.gap import compute, selected
from diredi.knowledge.recipe import CycleRecipe
from diredi.labels import LabelSpace
from diredi.progress import OnProgress, renamed
from diredi.store.weights import WeightMap

FEW = 0.25
"""Images with labels of the site are few if they make up a smaller share of an epoch. They are then half of it..."""
OFTEN = 16
"""... but none of them is shown more often than so in one."""
PSEUDO_CONFIDENCE = 0.3
"""What the student is less sure of is not part of its presumption about an image."""


@dataclass(frozen=True)
class SiteData:
    """What tutor 2 learns from; class ids are those of `labels`."""

    labels: LabelSpace
    private: Pool
    """With labels of the site."""
    coreset: Pool
    filled_in: Pool = field(default_factory=lambda: Pool([]))
    """Images of the site with what an oracle finds there; they say nothing of classes that it does not know."""

    @classmethod
    def of(
        cls,
        private: Dataset,
        coreset: Dataset | None,
        labels: LabelSpace,
        presumed_shows_new: bool,
        filled_in: Dataset | None = None,
        known: Sequence[str] = (),
    ) -> SiteData:
        """Return the images of a site and its coreset in one label space.

        Images say nothing of classes that their annotator did not know, or has named and nowhere labelled. The
        manufacturer's are known to show no new class unless `presumed_shows_new` is set; but of the classes that the
        models know (`known`), they say something only of those that are labelled there, for a manufacturer has seldom
        labelled all that COCO has taught its models.

        Raises:
            InvalidInput: A class is not in `labels`.
        """
        ours = Pool(private.with_labels(labels).train, _known(labelled_names(private), labels))
        oracles = Pool([])
        if filled_in is not None:
            oracles = Pool(filled_in.with_labels(labels).train, _known(filled_in.names, labels))
        if coreset is None:
            return cls(labels, ours, Pool([]), oracles)
        shown = labelled_names(coreset)
        silent = {name for name in (labels.names if presumed_shows_new else known) if name not in shown}
        theirs = _known([name for name in labels.names if name not in silent], labels)
        return cls(labels, ours, Pool(coreset.with_labels(labels).train, theirs), oracles)

    @property
    def pools(self) -> list[Pool]:
        """Return the images that are learned from. Those with labels of the site are there again where they are few."""
        private = Pool([*self.private.samples] * self.repeats, self.private.classes)
        return [private, *([self.filled_in] if self.filled_in.samples else []), self.coreset]

    @property
    def repeats(self) -> int:
        """How often a few images with labels of the site are seen in an epoch, so that their classes are learned."""
        few, others = len(self.private.samples), len(self.filled_in.samples) + len(self.coreset.samples)
        return 1 if not few or few >= FEW * (few + others) else min(round(others / few), OFTEN)

    @property
    def images(self) -> int:
        """How many images an epoch has."""
        return sum(len(pool.samples) for pool in self.pools)

    @property
    def seen(self) -> set[str]:
        """Classes of which the images of the site show something, by its own labels or by an oracle's answers."""
        samples = [*self.private.samples, *self.filled_in.samples]
        return {self.labels.names[int(i)] for sample in samples for i in sample.boxes[:, 0]}


def labelled_names(data: Dataset) -> tuple[str, ...]:
    """Return the classes of which a data set has a label: what it says nothing of may be anywhere in its images."""
    counts = [data.counts(split) for split in SPLITS]
    return tuple(name for name in data.names if any(count[name] for count in counts))


def _known(names: Sequence[str], labels: LabelSpace) -> frozenset[int] | None:
    """The classes that an annotator knew, as `Pool` has them."""
    return frozenset(labels.ids_of(names)) if len(names) < len(labels) else None


def reverse_distil(
    tutor: Detector,
    student: Detector,
    data: SiteData,
    recipe: CycleRecipe,
    *,
    on_progress: OnProgress | None = None,
    checkpoints: Path | None = None,
) -> tuple[Detector, WeightMap]:
    """Return tutor 2, which has learned the site, and the change of weights that is the knowledge gap to `tutor`.

    Args:
        tutor: Where both tutors start. It is not changed.
        student: The deployed student, which teaches beside the labels. It is not changed.
        data: The site's images and the coreset.
        recipe: How to learn, and what of the change is in the gap.
        on_progress: Hears of the steps "tutor-2" and "tutor-1".
        checkpoints: A folder in which each training keeps where it is; None keeps nothing.

    Raises:
        InvalidInput: The data does not allow what the recipe wants.
    """
    presumed = presumption(student, data, recipe) if recipe.reverse_distillations == "two" else None
    tutor_2 = _tutor("tutor-2", tutor, student, data.pools, data.labels, recipe, on_progress, checkpoints)
    base, before = tutor.weights(), tutor.weights()
    if presumed is not None:
        tutor_1 = _tutor("tutor-1", tutor, student, presumed, data.labels, recipe, on_progress, checkpoints)
        before = tutor_1.weights()
    gap = compute(tutor_2.weights(), before, base, statistics=recipe.batch_norm == "gap")
    return tutor_2, selected(gap, base, {name: tutor.section_of(name) in recipe.layers for name in base})


def _tutor(
    step: str,
    tutor: Detector,
    student: Detector,
    pools: Sequence[Pool],
    labels: LabelSpace,
    recipe: CycleRecipe,
    on_progress: OnProgress | None,
    checkpoints: Path | None,
) -> Detector:
    start, spec = tutor, tutor.spec
    if recipe.start == "fresh":
        start = registry.create(spec.architecture, spec.image_size, labels, recipe.seed, tutor.device)
    return distil(
        start,
        pools,
        teacher=student,
        recipe=seeded(recipe.tutor, recipe.seed),
        labels=labels,
        checkpoint=checkpoints and checkpoints / step,
        on_progress=renamed(on_progress, step),
    )


def presumption(student: Detector, data: SiteData, recipe: CycleRecipe) -> list[Pool]:
    """What tutor 1 learns: as many images as tutor 2, the shared ones in the same places."""
    *ours, _ = data.pools
    private = [sample for pool in ours for sample in pool.samples]
    if recipe.presumption == "student":
        return [as_seen_by(student, private, data.labels), data.coreset]
    if not data.coreset.samples:
        raise InvalidInput(
            "tutor 1 has no presumed data to learn: let the manufacturer ship a coreset (coreset_images), or choose "
            "presumption=student or reverse_distillations=one"
        )
    instead = list(islice(cycle(data.coreset.samples), len(private)))
    return [Pool(instead, data.coreset.classes), data.coreset]


def as_seen_by(student: Detector, samples: Sequence[Sample], labels: LabelSpace) -> Pool:
    """The same images with the student's own boxes for labels; they say nothing of classes that it does not know."""
    ids = labels.ids_of(student.spec.labels.names)
    return Pool(pseudo_label(student, samples, labels, PSEUDO_CONFIDENCE), frozenset(ids))


def distil_student(
    student: Detector,
    tutor_2: Detector,
    data: SiteData,
    recipe: CycleRecipe,
    *,
    on_progress: OnProgress | None = None,
    checkpoints: Path | None = None,
) -> tuple[Detector, WeightMap]:
    """Return the site's own student, and the change of weights that is its gap to the deployed one.

    It carries a class of which the cloud has no pictures; tutor 2 teaches it, on the images that taught tutor 2.

    Args:
        student: The deployed student. It is not changed.
        tutor_2: What `reverse_distil` gave.
        data: The site's images and the coreset.
        recipe: How to learn.
        on_progress: Hears of the step "student-gap".
        checkpoints: A folder in which the training keeps where it is; None keeps nothing.
    """
    step = "student-gap"
    taught = distil(
        student,
        data.pools,
        teacher=tutor_2,
        recipe=seeded(recipe.student, recipe.seed),
        labels=data.labels,
        checkpoint=checkpoints and checkpoints / step,
        on_progress=renamed(on_progress, step),
    )
    return taught, compute(taught.weights(), student.weights(), student.weights())


def teach_branch(
    step: str,
    base: Detector,
    data: SiteData,
    recipe: TrainRecipe,
    *,
    teacher: Detector | None = None,
    on_progress: OnProgress | None = None,
    checkpoints: Path | None = None,
) -> Detector:
    """Return a copy of the base's main network whose neck and head have learned the site: what a branch is made of.

    It learns from the site's labels and from the coreset, whose images show what the new classes are not. The backbone
    stays as it is.

    Args:
        step: What `on_progress` hears of it by, and the name of its folder in `checkpoints`.
        base: The tutor or the student. It is not changed.
        data: The site's images and the coreset.
        recipe: How to learn.
        teacher: Who teaches beside the labels.
        on_progress: Hears of the step.
        checkpoints: A folder in which the training keeps where it is; None keeps nothing.
    """
    return distil(
        base.parts()[0],
        data.pools,
        teacher=teacher,
        recipe=recipe,
        labels=data.labels,
        checkpoint=checkpoints and checkpoints / step,
        on_progress=renamed(on_progress, step),
    )


def seeded(training: TrainRecipe, seed: int) -> TrainRecipe:
    """Return the recipe with another seed."""
    return training.model_copy(update={"seed": seed})
