"""Site job: what the candidate release of a cycle finds on held-out images and the one before it does not, and back.

Nothing of it leaves the site: it is for the site's own people, who see it on their pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from diredi.boxes import box_iou
from diredi.config import Config
from diredi.data.dataset import Sample, load
from diredi.data.images import read_image
from diredi.data.yolo import label_file_of
from diredi.detectors import registry
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Detections, Predictor
from diredi.knowledge.jobs.specs import SiteDataSpec
from diredi.progress import OnProgress, report

MODULE: Final = "user_domain.comparison_job"
STEP: Final = "compare"
SAME: Final = 0.5
"""Overlap (IoU) from which a box is that of a label."""
BATCH: Final = 8


class CompareSpec(SiteDataSpec):
    """Two releases, to be compared on a site's held-out images."""

    before: Path
    """Weights of the release that was deployed."""
    after: Path
    """The candidate, as edge nodes run it."""
    confidence: float = 0.25
    """What counts as found (0 to 1)."""


class ComparedBox(Config):
    """A labelled object, or a box where there is none."""

    name: str
    x: float
    """Its left edge, as all of these a share of the picture."""
    y: float
    """Its upper edge."""
    width: float
    height: float
    before: bool
    """Whether the release before has found it."""
    after: bool
    """Whether the candidate has."""


class ComparedImage(Config):
    """A held-out image."""

    path: Path
    objects: list[ComparedBox]
    """What is labelled on it."""
    false_alarms: list[ComparedBox]
    """Boxes of one of the releases where nothing of that class is labelled."""

    @property
    def flips(self) -> int:
        """How much differs between the two releases."""
        return sum(box.before != box.after for box in (*self.objects, *self.false_alarms))


class CompareResult(Config):
    """What differs, image by image."""

    images: list[ComparedImage] = Field(default_factory=list)

    def count(self, *, before: bool, after: bool, name: str = "") -> int:
        """Return how many objects were found by just these releases, of one class or all."""
        return sum(
            (box.before, box.after) == (before, after) and name in ("", box.name)
            for image in self.images for box in image.objects
        )  # fmt: skip

    def false_alarms(self, *, after: bool) -> int:
        """Return how many false alarms one of the releases has."""
        return sum(box.after if after else box.before for image in self.images for box in image.false_alarms)

    @property
    def names(self) -> list[str]:
        """The classes that are labelled, by name."""
        return sorted({box.name for image in self.images for box in image.objects})


def main(spec: CompareSpec, folder: Path, on_progress: OnProgress) -> CompareResult:
    """Compare two releases.

    Raises:
        DatasetError: The site's data set cannot be used.
        CorruptData: A release cannot be read.
    """
    data = load(spec.data).renamed(spec.class_names)
    held_out = [
        sample for sample in data.val if spec.no_label_file == "background" or label_file_of(sample.image).is_file()
    ]
    releases: list[Predictor] = [registry.load(spec.before), OnnxPredictor(spec.after)]
    result = CompareResult()
    for start in range(0, len(held_out), BATCH):
        samples = held_out[start : start + BATCH]
        images = [read_image(sample.image) for sample in samples]
        found = [release.predict(images, spec.confidence) for release in releases]
        for sample, image, before, after in zip(samples, images, *found, strict=True):
            names = [release.labels.names for release in releases]
            boxes = [_named(one, of, image.shape) for one, of in zip((before, after), names, strict=True)]
            result.images.append(_compare(sample, data.names, boxes))
        report(on_progress, STEP, len(result.images) / len(held_out), f"{len(result.images)} of {len(held_out)} images")
    return result


Named = list[tuple[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]]
"""Class and x1, y1, x2, y2 as shares of the image, the surest first."""


def _named(found: Detections, names: Sequence[str], shape: tuple[int, ...]) -> Named:
    scale = np.array([shape[1], shape[0], shape[1], shape[0]], np.float64)
    return [(names[kind], box / scale) for kind, box in zip(found.classes, found.boxes.astype(np.float64), strict=True)]


def _compare(sample: Sample, names: Sequence[str], found: Sequence[Named]) -> ComparedImage:
    rows = np.asarray(sample.boxes, np.float64).reshape(-1, 5)
    corners = np.concatenate([rows[:, 1:3] - rows[:, 3:5] / 2, rows[:, 1:3] + rows[:, 3:5] / 2], 1)
    hits, alarms = [], []
    for release, boxes in enumerate(found):
        hit = np.zeros(len(rows), bool)
        for name, box in boxes:
            fits = box_iou(box, corners) * [names[int(kind)] == name for kind in rows[:, 0]] * ~hit
            if len(fits) and fits.max() >= SAME:
                hit[fits.argmax()] = True
            else:
                alarms.append(_box(name, box.tolist(), before=release == 0, after=release == 1))
        hits.append(hit)
    objects = [
        _box(names[int(row[0])], corner, before=bool(before), after=bool(after))
        for row, corner, before, after in zip(rows, corners, *hits, strict=True)
    ]
    return ComparedImage(path=sample.image, objects=objects, false_alarms=_joined(alarms))


def _joined(alarms: list[ComparedBox]) -> list[ComparedBox]:
    """Return false alarms with those that both releases have as one."""
    old, new = [box for box in alarms if box.before], [box for box in alarms if box.after]
    for box in list(new):
        fits = [other for other in old if other.name == box.name and not other.after and _overlap(other, box) >= SAME]
        if fits:
            old[old.index(fits[0])] = fits[0].model_copy(update={"after": True})
            new.remove(box)
    return [*old, *new]


def _overlap(one: ComparedBox, other: ComparedBox) -> float:
    a, b = (np.array([box.x, box.y, box.x + box.width, box.y + box.height]) for box in (one, other))
    return float(box_iou(a, b[None])[0])


def _box(name: str, corners: Sequence[float], *, before: bool, after: bool) -> ComparedBox:
    x1, y1, x2, y2 = (float(min(max(value, 0.0), 1.0)) for value in corners)
    return ComparedBox(name=name, x=x1, y=y1, width=x2 - x1, height=y2 - y1, before=before, after=after)
