"""Distillation of one detector into another: the way in which every new model of DiReDi comes about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diredi.data.dataset import Dataset
from diredi.detectors.base import Detector, Teacher
from diredi.distillation.batches import Pool
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.labels import LabelSpace
from diredi.progress import OnProgress


def distil(
    student: Detector,
    data: Dataset | Sequence[Pool],
    *,
    teacher: Teacher | None = None,
    recipe: TrainRecipe | Mapping[str, Any] | None = None,
    labels: LabelSpace | None = None,
    shows_new: bool = False,
    checkpoint: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Detector:
    """Return a copy of the student that has learned from labelled images and, where there is one, from a teacher.

    The loss of a batch is `label_weight * L(labels) + sum over i of weight_i * L_i(student, teacher)`, where the `L_i`
    are the distillation losses that the recipe names (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural
    Network", 2015, arXiv 1503.02531; each loss in `diredi.LOSSES` names its own paper). A teacher teaches only classes
    that both know by name: what it has never seen it does not teach to be background.

    Args:
        student: Where to start. It is not changed; the copy is on its device and has its image size.
        data: The data set whose `train` split is learned, its classes going by their names; or pools of samples whose
            class ids are those of the new label space.
        teacher: Whom to learn from beside the labels, at the same image size; None learns from labels alone.
        recipe: How to learn; a mapping holds the options that differ from `TrainRecipe()`.
        labels: The label space of the copy, which must extend the student's. None: the student's, or the teacher's
            where that extends it, with the classes of `data` that are new to it at its end.
        shows_new: Whether images of `data` may show, without a label, classes that `data` does not name. If so its
            labels say nothing of these classes, and only the teacher does.
        checkpoint: A folder in which the training keeps where it is after each epoch, so that the second call of an
            interrupted training goes on; whoever names it deletes it. None keeps nothing.
        on_progress: Hears of the step "train".

    Returns:
        The new detector, in eval mode.

    Raises:
        InvalidInput: There is nothing to learn from, or student, teacher, classes and recipe do not go together.
        DatasetError: An image cannot be read.
        DirediError: The training has diverged.

    Examples:
        >>> import diredi
        >>> new = diredi.distil(student, maker, teacher=tutor, recipe={"epochs": 2})  # doctest: +SKIP
    """
    recipe = TrainRecipe.of(recipe)
    if isinstance(data, Dataset):
        labels = _label_space(student, teacher, data) if labels is None else labels
        named = frozenset(labels.ids_of(data.names))
        pools = [Pool(data.with_labels(labels).train, named if shows_new and len(named) < len(labels) else None)]
    else:
        pools, labels = list(data), student.spec.labels if labels is None else labels
    new = student.expand_classes(labels)
    train(new, pools, recipe, teacher=teacher, checkpoint=checkpoint, on_progress=on_progress)
    return new


def _label_space(student: Detector, teacher: Teacher | None, data: Dataset) -> LabelSpace:
    known = student.spec.labels
    if teacher is not None and teacher.spec.labels.extends(known):
        known = teacher.spec.labels
    return known.expand(data.names)
