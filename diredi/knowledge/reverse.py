"""Reverse distillation at the site: the deployed student teaches tutors, and the site's labels teach tutor 2.

    tutor 2 learns the site's images and labels, with the coreset of presumed data mixed in;
    tutor 1 learns the presumption: the same start, recipe, seed, order and number of images, without the site's labels.

In tutor 1's list every image of the site is replaced, in its place, by what stands for the presumption, and the
coreset stands where it stands for tutor 2. So what the two see in common they see in the same step and in the same
shape, and it cancels in the gap; on equal data the gap is exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from diredi.data.dataset import DataSet, Sample
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.ensemble import pseudo_label
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.errors import InvalidInput
from diredi.knowledge.gap import compute, selected
from diredi.knowledge.recipe import CycleRecipe
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

OnProgress = Callable[[str, float, str], None]
"""on_progress(step, fraction 0..1, one short line)."""

PSEUDO_CONFIDENCE = 0.3
"""What the student is less sure of is not part of its presumption about an image."""


@dataclass(frozen=True)
class SiteData:
    """What tutor 2 learns from; class ids are those of `labels`."""

    labels: LabelSpace
    private: Pool
    coreset: Pool

    @classmethod
    def of(cls, private: DataSet, coreset: DataSet | None, labels: LabelSpace, presumed_shows_new: bool) -> SiteData:
        """Images say nothing of classes that their annotator did not know; the manufacturer's are known to show no new
        class unless `presumed_shows_new`. Raises InvalidInput when a class is not in `labels`."""
        known = frozenset(labels.ids_of(private.names))
        ours = Pool(private.with_labels(labels).train, known if len(known) < len(labels) else None)
        if coreset is None:
            return cls(labels, ours, Pool([]))
        theirs = frozenset(labels.ids_of(coreset.names)) if presumed_shows_new else None
        return cls(labels, ours, Pool(coreset.with_labels(labels).train, theirs))

    @property
    def pools(self) -> list[Pool]:
        return [self.private, self.coreset]

    @property
    def seen(self) -> set[str]:
        """Classes of which the site has at least one label."""
        return {self.labels.names[int(i)] for sample in self.private.samples for i in sample.boxes[:, 0]}


def reverse_distil(
    tutor: Detector,
    student: Detector,
    data: SiteData,
    recipe: CycleRecipe,
    on_progress: OnProgress,
    checkpoints: Path | None = None,
) -> tuple[Detector, WeightMap]:
    """Tutor 2 and the knowledge gap to `tutor`. Neither `tutor` nor `student` is changed.

    `checkpoints`: a folder in which each training keeps where it is, as `train` does.
    Raises InvalidInput where the data does not allow what the recipe wants.
    """
    training = seeded(recipe.tutor, recipe.seed)
    tutor_2 = _start(tutor, data.labels, recipe)
    _train(tutor_2, data.pools, training, student, on_progress, checkpoints, "tutor-2")
    base, before = tutor.weights(), tutor.weights()
    if recipe.reverse_distillations == "two":
        tutor_1 = _start(tutor, data.labels, recipe)
        presumed = presumption(student, data, recipe)
        _train(tutor_1, presumed, training, student, on_progress, checkpoints, "tutor-1")
        before = tutor_1.weights()
    gap = compute(tutor_2.weights(), before, base, statistics=recipe.batch_norm == "gap")
    return tutor_2, selected(gap, base, {name: tutor.section_of(name) in recipe.layers for name in base})


def presumption(student: Detector, data: SiteData, recipe: CycleRecipe) -> list[Pool]:
    """What tutor 1 learns: as many images as tutor 2, the shared ones in the same places."""
    if recipe.presumption == "student":
        return [as_seen_by(student, data.private.samples, data.labels), data.coreset]
    if not data.coreset.samples:
        raise InvalidInput(
            "tutor 1 has no presumed data to learn: let the manufacturer ship a coreset (coreset_images), or choose "
            "presumption=student or reverse_distillations=one"
        )
    instead = list(islice(cycle(data.coreset.samples), len(data.private.samples)))
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
    on_progress: OnProgress,
    checkpoints: Path | None = None,
) -> tuple[Detector, WeightMap]:
    """The site's own student and its gap to the deployed one, which is not changed.

    It carries a class of which the cloud has no pictures; tutor 2 teaches it, on the images that taught tutor 2.
    """
    taught = student.expand_classes(data.labels)
    training = seeded(recipe.student, recipe.seed)
    _train(taught, data.pools, training, tutor_2, on_progress, checkpoints, "student-gap")
    return taught, compute(taught.weights(), student.weights(), student.weights())


def seeded(training: TrainRecipe, seed: int) -> TrainRecipe:
    return training.model_copy(update={"seed": seed})


def _start(tutor: Detector, labels: LabelSpace, recipe: CycleRecipe) -> Detector:
    if recipe.start == "tutor":
        return tutor.expand_classes(labels)
    spec = tutor.spec
    return registry.create(spec.architecture, spec.image_size, labels, recipe.seed, tutor.device)


def _train(
    learner: Detector,
    pools: list[Pool],
    training: TrainRecipe,
    teacher: Detector,
    on_progress: OnProgress,
    checkpoints: Path | None,
    step: str,
) -> None:
    train(
        learner,
        pools,
        training,
        teacher=teacher,
        on_progress=partial(on_progress, step),
        checkpoint=checkpoints and checkpoints / step,
    )
