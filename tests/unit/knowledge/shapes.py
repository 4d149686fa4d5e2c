"""Coloured shapes on noise: enough for a tiny detector to learn in seconds. A site is darker and has discs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from diredi.data.dataset import Dataset, load
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.recipe import Augment, TrainRecipe
from diredi.knowledge.reverse import SiteData
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

SIZE = 64
TINY = "yolo11-w0.125"
KNOWN = LabelSpace(names=("box", "bar"))
GROWN = KNOWN.expand(["disc"])
GENTLE = Augment(scale=0.1, shift=0.05)
LEARN = TrainRecipe(steps=100, batch=12, learning_rate=8e-3, augment=GENTLE)
"""Enough for a tiny detector; a batch of 12 takes hardly longer than one of 4."""


@dataclass(frozen=True)
class World:
    """A manufacturer with a detector of boxes and bars, and a darker site that has discs too."""

    presumed_yaml: Path
    site_yaml: Path
    model: Path
    tutor_2_file: Path
    gap_file: Path

    @property
    def presumed(self) -> Dataset:
        return load(self.presumed_yaml)

    @property
    def site(self) -> Dataset:
        return load(self.site_yaml)

    def detector(self) -> Detector:
        return _copy(_loaded(self.model))

    def tutor_2(self) -> Detector:
        """What the manufacturer's detector has become at the site, as LEARN says."""
        return _copy(_loaded(self.tutor_2_file))

    def gap(self) -> WeightMap:
        """The knowledge that makes `detector` into `tutor_2`."""
        return WeightMap.load(self.gap_file)

    def site_data(self) -> SiteData:
        return SiteData.of(self.site, self.presumed, GROWN, presumed_shows_new=False)


def write_shapes(folder: Path, names: tuple[str, ...], train: int, val: int, seed: int, light: float = 1.0) -> Path:
    """A data set in YOLO format; returns its data.yaml."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for number in range(count):
            image, lines = _picture(names, random, light)
            cv2.imwrite(str(folder / "images" / split / f"{number:03}.png"), image)
            (folder / "labels" / split / f"{number:03}.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(
        f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [{', '.join(names)}]\n"
    )
    return folder / "data.yaml"


def _picture(names: tuple[str, ...], random: np.random.Generator, light: float) -> tuple[np.ndarray, list[str]]:
    image = random.integers(60, 120, (SIZE, SIZE, 3), dtype=np.uint8)
    lines = []
    for left in (2, 34):
        which = int(random.integers(len(names)))
        x, y, side = left + int(random.integers(5)), int(random.integers(36)), int(random.integers(18, 26))
        width, height = (side, 2 * side // 3) if names[which] == "bar" else (side, side)
        if names[which] == "disc":
            cv2.circle(image, (x + side // 2, y + side // 2), side // 2, (40, 220, 220), -1)
        else:
            colour = (230, 60, 60) if names[which] == "box" else (60, 60, 230)
            cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), colour, -1)
        centre = (x + width / 2) / SIZE, (y + height / 2) / SIZE
        lines.append(f"{which} {centre[0]:.5f} {centre[1]:.5f} {width / SIZE:.5f} {height / SIZE:.5f}")
    return (image * light).astype(np.uint8), lines


def tiny(labels: LabelSpace = KNOWN, seed: int = 0) -> Detector:
    return _copy(_made(labels, seed))


@cache
def _made(labels: LabelSpace, seed: int) -> Detector:
    return registry.create(TINY, SIZE, labels, seed, "cpu")


@cache
def _loaded(file: Path) -> Detector:
    return registry.load(file, device="cpu")


def _copy(detector: Detector) -> Detector:
    """Of what no test may change; a copy takes a tenth of the time of making or loading it."""
    return detector.expand_classes(detector.spec.labels)


def taught(base: Detector, new: tuple[str, ...] = ("disc",), seed: int = 0, by: float = 0.02) -> Detector:
    """What a branch is made of: neck and head are others, the backbone is the base's."""
    random = np.random.default_rng(seed)
    copy = base.expand_classes(base.spec.labels.expand(new))

    def other(name: str, array: np.ndarray) -> np.ndarray:
        if copy.section_of(name) == "backbone" or "running" in name or array.dtype != np.float32:
            return array
        return (array + by * random.standard_normal(array.shape)).astype(np.float32)

    copy.load_weights(copy.weights().mapped(other))
    return copy
