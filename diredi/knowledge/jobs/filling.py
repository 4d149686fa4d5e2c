"""Site job: what is on images of which the site's labels say nothing.

A site may have labelled ten of its images, or only its new class. What is not labelled is not absent. So images without
a label file do not teach that they show nothing, and an oracle says what it finds there of known classes; of new ones
these images say nothing. Where the site has labelled no known class at all, the oracle looks at its labelled images,
too, which are then learned from twice: for new classes by the site's labels, for known ones by the oracle's answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diredi.boxes import box_iou
from diredi.data import yolo
from diredi.data.dataset import Dataset, Sample, load
from diredi.data.notes import counted_noun
from diredi.knowledge.gaps import Decision
from diredi.knowledge.jobs import oracle
from diredi.knowledge.jobs.specs import OracleSpec, SiteDataSpec
from diredi.knowledge.reverse import labelled_names
from diredi.progress import OnProgress

SAME = 0.5
"""Overlap (IoU) from which an answer is about the object of a label; the label knows more."""


def load_site(spec: SiteDataSpec, *, decode: bool = False) -> tuple[Dataset, list[Sample]]:
    """Read a site's data set with its labels.

    Args:
        spec: The data set, and how the site wants it to be read.
        decode: As for `diredi.load_dataset`.

    Returns:
        The data set, and images to learn from that nobody has labelled.

    Raises:
        DatasetError: It cannot be used.
        InvalidInput: It lacks a class that is to be renamed.
    """
    site = load(spec.data, decode=decode).renamed(spec.class_names)
    return (site, []) if spec.no_label_file == "background" else without_label_file(site)


def without_label_file(data: Dataset) -> tuple[Dataset, list[Sample]]:
    """Divide a data set by whether there is a label file, even an empty one.

    Args:
        data: The data set, as it was read from files.

    Returns:
        The data set without images that nobody has labelled, and those of them that are in `train`.
    """
    train, val = ([yolo.label_file_of(sample.image).is_file() for sample in part] for part in (data.train, data.val))
    labelled = replace(data, train=_chosen(data.train, train), val=_chosen(data.val, val))
    return labelled, _chosen(data.train, [not there for there in train])


def fill_in(
    site: Dataset, unlabelled: Sequence[Sample], spec: OracleSpec, *, who: str, on_progress: OnProgress | None = None
) -> tuple[Dataset | None, tuple[Decision, ...]]:
    """Let an oracle say what is on images of which the site's labels say nothing.

    Args:
        site: The images that the site has labelled.
        unlabelled: Images that nobody has labelled.
        spec: The oracle; the known classes are its label space.
        who: The oracle in words, for the manifest.
        on_progress: Hears of the step "oracle".

    Returns:
        The images on which it found something, in `train`, or None where there are none; and what the site's manifest
        says of them.

    Raises:
        NotFound: There is no such oracle.
        CorruptData: It is no detector.
        InvalidInput: It knows none of the classes.
        DatasetError: An image cannot be read.
    """
    new_alone = not set(labelled_names(site)) & set(spec.labels.names)
    asked = [*unlabelled, *(site.train if new_alone else [])]
    if not asked:
        return None, ()
    names, answers = oracle.ask(asked, spec, on_progress=on_progress)
    given = [_beside(answer, sample) for answer, sample in zip(answers, asked, strict=True)]
    shown = Dataset(site.root, names, [sample for sample in given if len(sample.boxes)], [])
    why = [f"{counted_noun(len(unlabelled), 'image')} without a label file"] if unlabelled else []
    why += ["no label of a known class"] if new_alone else []
    decision = Decision(
        subject="known classes filled in",
        choice=oracle.found(names, given),
        because=f"the site has {' and '.join(why)}; {who} found them, and of other classes these images say nothing",
    )
    return (shown if shown.train else None), (decision,)


def left_out(unlabelled: Sequence[Sample]) -> Decision:
    """Return what a site's manifest says of images that nobody labels.

    Args:
        unlabelled: The images.
    """
    return Decision(
        subject="images without a label file",
        choice="left out",
        because=f"nobody has labelled {counted_noun(len(unlabelled), 'image')}, and the site has no oracle for them",
    )


def _chosen(samples: Sequence[Sample], wanted: Sequence[bool]) -> list[Sample]:
    return [sample for sample, chosen in zip(samples, wanted, strict=True) if chosen]


def _beside(answer: Sample, labelled: Sample) -> Sample:
    """The answers that are not about an object with a label."""
    if not len(labelled.boxes):
        return answer
    labels = _corners(labelled.boxes)
    free = [not (box_iou(box, labels) >= SAME).any() for box in _corners(answer.boxes)]
    return replace(answer, boxes=answer.boxes[np.array(free, bool)])


def _corners(boxes: yolo.Boxes) -> yolo.Boxes:
    centre, sides = boxes[:, 1:3], boxes[:, 3:5]
    return np.concatenate([centre - sides / 2, centre + sides / 2], 1)
