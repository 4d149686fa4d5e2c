"""Data sets of images with boxes: load, check, select and split them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from diredi.data import yolo
from diredi.data.images import read_image
from diredi.data.yolo import Boxes
from diredi.errors import DataSetError, InvalidInput
from diredi.labels import LabelSpace

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its boxes."""

    image: Path
    """File of the image."""
    boxes: Boxes
    """float32 [n, 5]: class id, centre x, centre y, width, height; the last four as shares of the image, 0 to 1."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images with boxes in two splits. Images stay on disk until they are read.

    Example:
        site = load(Path("site/data.yaml"))
        few = subset(site, n_train=100, seed=0)
    """

    root: Path
    """Folder of the data set."""
    names: tuple[str, ...]
    """Class names; class ids are positions in it."""
    train: list[Sample]
    """Samples to learn from."""
    val: list[Sample]
    """Held-out samples to measure with."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names."""
        return self.names

    def split(self, split: Split) -> list[Sample]:
        """Return the samples of a split by its name."""
        return self.train if split == "train" else self.val

    def counts(self, split: Split) -> dict[str, int]:
        """Count the boxes of every class in a split, in the order of class ids; classes without boxes have 0."""
        return _counts(self.split(split), self.names)

    def bytes_on_disk(self) -> int:
        """Return the size of all images and label files, in bytes."""
        images = [sample.image for sample in (*self.train, *self.val)]
        files = {*images, *(label for image in images if (label := yolo.label_file_of(image)).exists())}
        return sum(file.stat().st_size for file in files)

    def with_labels(self, labels: LabelSpace) -> DataSet:
        """Return the data set with the class ids of another label space.

        Args:
            labels: The label space; it must contain all classes of this set.

        Raises:
            InvalidInput: The label space lacks classes of this set; the message names them.
        """
        missing = [name for name in self.names if name not in labels.names]
        if missing:
            raise InvalidInput(
                f"data set {self.root} has classes that the label space lacks ({', '.join(missing)}): "
                f"rename them in data.yaml or let the label space grow"
            )
        ids = np.asarray(labels.ids_of(self.names), np.float32)

        def mapped(sample: Sample) -> Sample:
            boxes = sample.boxes.copy()
            boxes[:, 0] = ids[boxes[:, 0].astype(np.int64)]
            return replace(sample, boxes=boxes)

        return DataSet(self.root, labels.names, [mapped(s) for s in self.train], [mapped(s) for s in self.val])


class Problem(BaseModel):
    """A fault of a data set."""

    model_config = ConfigDict(frozen=True)

    message: str
    path: Path | None = None
    """File with the fault."""
    line: int | None = None
    """Line in the file, from 1."""


class SplitReport(BaseModel):
    """Numbers of a split."""

    model_config = ConfigDict(frozen=True)

    images: int
    background: int
    """Images without boxes."""
    boxes: dict[str, int]
    """Boxes by class name."""


class CheckReport(BaseModel):
    """The result of `check`. The set can be used if it has no `problems`."""

    model_config = ConfigDict(frozen=True)

    path: Path
    names: tuple[str, ...]
    splits: dict[str, SplitReport]
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """Whether the data set can be used."""
        return not self.problems


def load(path: Path, splits: Sequence[Split] = SPLITS) -> DataSet:
    """Load the data set that a `data.yaml` describes. Images are not decoded.

    Args:
        path: The `data.yaml`.
        splits: Splits to load; others are empty in the result.

    Returns:
        The data set.

    Raises:
        DataSetError: There is a fault, such as an empty split; it names the file, and the line if there is one. Use
            `check` for a list of all faults.
    """

    def stop(error: DataSetError) -> None:
        raise error

    description = yolo.read_description(Path(path), stop)
    samples = {split: _samples(description, split, stop) for split in splits}
    return DataSet(description.root, description.names, samples.get("train", []), samples.get("val", []))


def check(path: Path, on_progress: Callable[[float, str], None] | None = None) -> CheckReport:
    """Check a data set and decode all of its images.

    Args:
        path: The `data.yaml`.
        on_progress: Called as on_progress(fraction, name of the image) after each image.

    Returns:
        A report with all faults. Faults are never raised.
    """
    faults: list[DataSetError] = []
    names: tuple[str, ...] = ()
    splits: dict[str, SplitReport] = {}
    try:
        description = yolo.read_description(Path(path), faults.append)
    except DataSetError as error:
        faults.append(error)
    else:
        names = description.names
        samples = {split: _samples(description, split, faults.append) for split in SPLITS}
        splits = {split: _split_report(samples[split], names) for split in SPLITS}
        _check_images([sample.image for split in SPLITS for sample in samples[split]], faults.append, on_progress)
    problems = [Problem(message=str(fault), path=fault.path, line=fault.line) for fault in faults]
    return CheckReport(path=Path(path), names=names, splits=splits, problems=problems)


def subset(dataset: DataSet, n_train: int, seed: int, n_val: int | None = None) -> DataSet:
    """Draw a coreset in which every class keeps its share of images.

    Args:
        dataset: The whole set.
        n_train: Number of training images; all of them if there are fewer.
        seed: Equal seeds draw equal images.
        n_val: Number of held-out images; None keeps all.

    Returns:
        A data set with the images that were drawn.
    """
    train = _stratified(dataset.train, n_train, seed)
    val = dataset.val if n_val is None else _stratified(dataset.val, n_val, seed + 1)
    return replace(dataset, train=train, val=val)


def by_camera(dataset: DataSet, pattern: str = r"(.+)[-_]\d+") -> dict[str, DataSet]:
    """Split a data set by camera.

    Args:
        dataset: The whole set.
        pattern: A regular expression for the name of an image without its suffix. Its first group is the camera: by
            default what stands before the number ("avenue_009", "car-park-cam3-000030").

    Returns:
        A data set for each camera, sorted by the cameras' names.

    Raises:
        InvalidInput: The name of an image does not match the pattern.
    """
    cameras: dict[str, DataSet] = {}
    for split in SPLITS:
        for sample in dataset.split(split):
            match = re.fullmatch(pattern, sample.image.stem)
            if match is None:
                raise InvalidInput(f"{sample.image} does not match the pattern of cameras {pattern!r}: give another")
            camera = cameras.setdefault(match[1], replace(dataset, train=[], val=[]))
            camera.split(split).append(sample)
    return dict(sorted(cameras.items()))


def _samples(description: yolo.Description, split: Split, sink: yolo.Sink) -> list[Sample]:
    if split not in description.splits:
        sink(DataSetError(f"`{split}:` is missing: name the folder with its images", description.path))
        return []
    images = dict.fromkeys(
        image for place in description.splits[split] for image in yolo.list_images(place, split, description, sink)
    )
    if not images:
        places = ", ".join(str(place) for place in description.splits[split])
        sink(DataSetError(f"`{split}:` has no images in {places}: add some or correct the path", description.path))
    classes = len(description.names)
    return [Sample(image, yolo.read_labels(yolo.label_file_of(image), classes, sink)) for image in images]


def _check_images(images: Sequence[Path], sink: yolo.Sink, on_progress: Callable[[float, str], None] | None) -> None:
    for index, image in enumerate(images):
        try:
            read_image(image)
        except DataSetError as error:
            sink(error)
        if on_progress is not None:
            on_progress((index + 1) / len(images), image.name)


def _counts(samples: Iterable[Sample], names: tuple[str, ...]) -> dict[str, int]:
    boxes = Counter(int(row[0]) for sample in samples for row in sample.boxes)
    return {name: boxes[index] for index, name in enumerate(names)}


def _split_report(samples: Sequence[Sample], names: tuple[str, ...]) -> SplitReport:
    background = sum(len(sample.boxes) == 0 for sample in samples)
    return SplitReport(images=len(samples), background=background, boxes=_counts(samples, names))


def _stratified(samples: list[Sample], n: int, seed: int) -> list[Sample]:
    """Draw images in turn for the class of which the smallest share has been drawn; background counts as a class."""
    if n >= len(samples):
        return samples
    order = np.random.default_rng(seed).permutation(len(samples))
    classes_of = {int(i): sorted({int(c) for c in samples[i].boxes[:, 0]}) or [-1] for i in order}
    images_of: dict[int, list[int]] = {}
    for index, classes in classes_of.items():
        for name in classes:
            images_of.setdefault(name, []).append(index)
    waiting = {name: iter(images) for name, images in images_of.items()}
    drawn: dict[int, None] = {}
    shares: Counter[int] = Counter()
    while len(drawn) < n:
        neediest = min(waiting, key=lambda c: (shares[c] / len(images_of[c]), len(images_of[c]), c))
        chosen = next((i for i in waiting[neediest] if i not in drawn), None)
        if chosen is None:
            del waiting[neediest]
            continue
        drawn[chosen] = None
        shares.update(classes_of[chosen])
    return [samples[index] for index in sorted(drawn)]
