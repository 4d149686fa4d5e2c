"""Site jobs: an oracle says what is on images that nobody has labelled, by looking at each several times.

A student at the edge has one look of few pixels. A larger detector that takes its time sees more, so a student that
learns one place from it can become better there than it is at one look. What the oracle says of the held-out images is
all that there is to judge by: agreement with it estimates average precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from diredi.config import Config
from diredi.data.dataset import SPLITS, Dataset, Sample, Split
from diredi.data.notes import counted_noun
from diredi.errors import DatasetError, NotFound
from diredi.evaluation.detection import evaluate
from diredi.knowledge.gaps import Decision
from diredi.knowledge.jobs.specs import OracleSpec
from diredi.labels import LabelSpace
from diredi.progress import OnProgress, report
from diredi.store.blobs import digest_of_file
from diredi.store.files import atomic_write, make_folder, read_state

if TYPE_CHECKING:
    from diredi.detectors.base import Detector
    from diredi.distillation.ensemble import TTAPredictor

STEP = "oracle"
AT_ONCE = 32
"""Images between two writes of what was found, so that a job that is killed goes on from there."""
MOST_LISTED = 12
FEWEST_TOLD = 10
"""A class that is found on fewer images is not told to the cloud."""
TESTED = 60
"""Images of the coreset on which an estimate is compared with labels."""

Rows = list[Annotated[list[float], Field(min_length=5, max_length=5)]]
"""As the boxes of a `Sample`."""


class _MadeFrom(Config):
    """What answers depend on; with another oracle, or asked otherwise, it would answer otherwise."""

    digest: str
    labels: tuple[str, ...]
    looks: tuple[float, ...]
    confidence: float


class _Answers(Config):
    """What an oracle has found in a site's images: kept at the site, never sent."""

    made_from: _MadeFrom
    names: tuple[str, ...] = ()
    """The classes that it knows."""
    boxes: dict[str, Rows] = Field(default_factory=dict)
    """Of each image."""


def looks_of(detector: Detector, looks: Sequence[float]) -> tuple[int, ...]:
    """Return the sizes at which an oracle looks: multiples of its own input, in steps of 32 pixels.

    Args:
        detector: The oracle.
        looks: The multiples.
    """
    return tuple(sorted({32 * max(1, int(look * detector.spec.image_size // 32)) for look in looks}))


def label(
    site: Dataset, oracle: OracleSpec, splits: Sequence[Split] = SPLITS, *, on_progress: OnProgress | None = None
) -> Dataset:
    """Give images the labels that an oracle finds; their own are not looked at.

    Args:
        site: The images.
        oracle: Who labels them. Answers that it has given in this cycle are taken from `kept`.
        splits: The splits that get labels; the others stay as they are.
        on_progress: Hears of the step "oracle".

    Returns:
        The data set with the classes that both the oracle and its label space know, judged by the oracle.

    Raises:
        NotFound: There is no such file.
        CorruptData: It is no detector.
        InvalidInput: The oracle knows none of the classes.
        DatasetError: The oracle finds nothing in a split, or an image cannot be read.
    """
    samples = [sample for split in splits for sample in site.split(split)]
    names, answered = ask(samples, oracle, on_progress=on_progress)
    answers = iter(answered)
    found = {split: [next(answers) for _ in site.split(split)] for split in splits}
    for split, labelled in found.items():
        if not any(len(sample.boxes) for sample in labelled):
            raise DatasetError(
                f"the oracle finds none of {', '.join(names[:MOST_LISTED])} in {len(labelled)} images of "
                f"`{split}`: name an oracle that knows such images, or lower oracle_confidence ({oracle.confidence:g})",
                site.root,
            )
    train, val = (found.get(split, site.split(split)) for split in SPLITS)
    return replace(site, names=names, train=train, val=val, judged_by="oracle")


def ask(
    samples: Sequence[Sample], oracle: OracleSpec, *, on_progress: OnProgress | None = None
) -> tuple[tuple[str, ...], list[Sample]]:
    """Ask an oracle what is on images; their own labels are not looked at.

    Args:
        samples: The images.
        oracle: Who labels them. Answers that it has given in this cycle are taken from `kept`.
        on_progress: Hears of the step "oracle".

    Returns:
        The classes that both the oracle and its label space know, and the images with what it found of these.

    Raises:
        NotFound: There is no such file.
        CorruptData: It is no detector.
        InvalidInput: The oracle knows none of the classes.
        DatasetError: An image cannot be read.
    """
    answers = _answers(samples, oracle, on_progress)
    return answers.names, [_labelled(sample, answers.boxes) for sample in samples]


def decision_of(site: Dataset, who: str) -> Decision:
    """Return what a site's manifest says of the labels that it learned from.

    Args:
        site: What `label` gave.
        who: The oracle in words, such as "the cloud's tutor".
    """
    train, held_out = (found(site.names, site.split(split)) for split in SPLITS)
    return Decision(
        subject="labels",
        choice="oracle",
        because=(
            f"the recipe says so; {who} found {train} to learn from, and {held_out} held out, by which all figures of "
            f"this site are estimated"
        ),
    )


def check_estimate(student: Detector, coreset: Dataset, oracle: OracleSpec, seed: int) -> Decision | None:
    """Estimate on images whose labels are known, to tell how far an estimate may be off.

    Args:
        student: The deployed student.
        coreset: Presumed images with their labels.
        oracle: Who labels them here.
        seed: Draws the images.

    Returns:
        What the site's manifest says of its estimates; None where the oracle finds nothing in the coreset, or is asked
        for none of its classes.
    """
    from diredi.distillation.ensemble import pseudo_label

    images = coreset.sample(TESTED, seed).train
    looks, names = _read(oracle)
    known = LabelSpace.of(names)
    truth = Dataset(coreset.root, coreset.names, [], images).with_labels(student.spec.labels.expand(coreset.names))
    answers = Dataset(coreset.root, names, [], pseudo_label(looks, images, known, oracle.confidence))
    if not any(len(sample.boxes) for sample in answers.val):
        return None
    by_labels, by_oracle = (100 * evaluate(student, data).map50 for data in (truth, answers))
    off = by_oracle - by_labels
    return Decision(
        subject="estimates",
        choice=f"about {abs(off):.0f} points too {'high' if off >= 0 else 'low'} where labels are known",
        because=(
            f"mAP50 of the deployed student on {counted_noun(len(images), 'image')} of the coreset is {by_labels:.1f} "
            f"by labels and {by_oracle:.1f} by the oracle's answers; where images are harder for it, it is off by more"
        ),
    )


def found(names: Sequence[str], samples: Sequence[Sample]) -> str:
    """Return in words what an oracle found, as it may leave the site: "car on about 20, bus on about 10 of 48 images".

    Whoever made the oracle chooses what it finds, so an image counts once for each class, and only tens are told.

    Args:
        names: Class names in the order of their ids.
        samples: All images that it has looked at, with what it found.
    """
    counts = Counter(names[kind] for sample in samples for kind in {int(row[0]) for row in sample.boxes})
    about = [(name, round(count, -1)) for name, count in counts.most_common() if count >= FEWEST_TOLD]
    words = [f"{name} on about {count}" for name, count in about[:MOST_LISTED]]
    more = f" and {len(about) - MOST_LISTED} more classes" if len(about) > MOST_LISTED else ""
    said = f"{', '.join(words)}{more}" if words else f"no class on {FEWEST_TOLD} or more"
    return f"{said} of {counted_noun(len(samples), 'image')}"


def _answers(samples: Sequence[Sample], oracle: OracleSpec, on_progress: OnProgress | None) -> _Answers:
    """Return what the oracle finds in each image. It is not even read where it has looked at all of them."""
    if not oracle.detector.is_file():
        raise NotFound(f"the oracle {oracle.detector} does not exist: name the file of a detector")
    made_from = _MadeFrom(
        digest=digest_of_file(oracle.detector).digest,
        labels=oracle.labels.names,
        looks=oracle.looks,
        confidence=oracle.confidence,
    )
    answers = read_state(oracle.kept, _Answers.model_validate_json)
    if answers is None or answers.made_from != made_from:
        answers = _Answers(made_from=made_from)
    missing = list({_key(sample): sample for sample in samples if _key(sample) not in answers.boxes}.values())
    return answers if not missing else _ask(missing, oracle, answers, len(samples), on_progress)


def _ask(
    missing: Sequence[Sample], oracle: OracleSpec, answers: _Answers, images: int, on_progress: OnProgress | None
) -> _Answers:
    from diredi.distillation.ensemble import pseudo_label

    report(on_progress, STEP, 0.0, f"reading {counted_noun(images, 'image')}")
    looks, names = _read(oracle)
    boxes = dict(answers.boxes)
    make_folder(oracle.kept.parent)
    for start in range(0, len(missing), AT_ONCE):
        some = missing[start : start + AT_ONCE]
        for sample in pseudo_label(looks, some, LabelSpace.of(names), oracle.confidence):
            boxes[_key(sample)] = sample.boxes.tolist()
        answers = answers.model_copy(update={"names": names, "boxes": boxes})
        atomic_write(oracle.kept, answers.model_dump_json())
        done = images - len(missing) + start + len(some)
        report(on_progress, STEP, done / images, f"{done} of {images} images")
    return answers


def _read(oracle: OracleSpec) -> tuple[TTAPredictor, tuple[str, ...]]:
    """Return the oracle, and the classes that it is asked for and knows."""
    from diredi.detectors import registry
    from diredi.distillation.ensemble import TTAPredictor

    detector = registry.load(oracle.detector)
    oracle.labels.check_shares(detector.spec.labels.names, "the tutor", "the oracle")
    names = tuple(name for name in oracle.labels.names if name in detector.spec.labels.names)
    return TTAPredictor.of(detector, looks_of(detector, oracle.looks)), names


def _key(sample: Sample) -> str:
    """Name an image as it is now: another one may come to lie under its path."""
    try:
        status = sample.image.stat()
    except OSError as error:
        raise DatasetError(f"image cannot be read ({error.strerror}): check the path", sample.image) from None
    return f"{sample.image} {status.st_size} {status.st_mtime_ns}"


def _labelled(sample: Sample, boxes: Mapping[str, Rows]) -> Sample:
    return replace(sample, boxes=np.array(boxes[_key(sample)], np.float32).reshape(-1, 5))
