"""`DataSet`: labelled images in two splits, as a value. Everything that learns or measures takes it from here."""

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
    """An image and its boxes: n x 5 float32, class id, centre x, centre y, width, height; the last four in 0..1."""

    image: Path
    boxes: Boxes


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples whose class ids are positions in `names`. Images stay on disk until somebody reads them."""

    root: Path
    names: tuple[str, ...]
    train: list[Sample]
    val: list[Sample]

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.names

    def split(self, split: Split) -> list[Sample]:
        return self.train if split == "train" else self.val

    def counts(self, split: Split) -> dict[str, int]:
        """Boxes of every class, classes without one included, in the order of their ids."""
        return _counts(self.split(split), self.names)

    def bytes_on_disk(self) -> int:
        """Images and label files."""
        images = [sample.image for sample in (*self.train, *self.val)]
        files = {*images, *(label for image in images if (label := yolo.label_file_of(image)).exists())}
        return sum(file.stat().st_size for file in files)

    def with_labels(self, labels: LabelSpace) -> DataSet:
        """The same boxes with the ids of `labels`. Raises InvalidInput when it lacks one of this set's classes."""
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
    """Something wrong in a data set, and where; `line` is 1-based."""

    model_config = ConfigDict(frozen=True)

    message: str
    path: Path | None = None
    line: int | None = None


class SplitReport(BaseModel):
    model_config = ConfigDict(frozen=True)

    images: int
    background: int
    """Images without a box."""
    boxes: dict[str, int]


class CheckReport(BaseModel):
    """Everything that `check` found; `problems` is empty when the set can be used."""

    model_config = ConfigDict(frozen=True)

    path: Path
    names: tuple[str, ...]
    splits: dict[str, SplitReport]
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        return not self.problems


def load(path: Path, splits: Sequence[Split] = SPLITS) -> DataSet:
    """The data set that a `data.yaml` describes. Images are not decoded: that is what `check` and `read_image` do.

    Raises DataSetError that names the file, and the line where there is one, at the first fault; a split that is asked
    for and is empty is a fault.
    """

    def stop(error: DataSetError) -> None:
        raise error

    description = yolo.read_description(Path(path), stop)
    samples = {split: _samples(description, split, stop) for split in splits}
    return DataSet(description.root, description.names, samples.get("train", []), samples.get("val", []))


def check(path: Path, on_progress: Callable[[float, str], None] | None = None) -> CheckReport:
    """All faults of a data set, every image decoded. Never raises for a fault: it is in the report."""
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
    """A coreset: `n_train` images drawn so that every class keeps its share, rare ones first. Same seed, same images.

    `val` stays whole unless `n_val` says otherwise; asking for more images than there are gives all of them.
    """
    train = _stratified(dataset.train, n_train, seed)
    val = dataset.val if n_val is None else _stratified(dataset.val, n_val, seed + 1)
    return replace(dataset, train=train, val=val)


def by_camera(dataset: DataSet, pattern: str = r"(.+)[-_]\d+") -> dict[str, DataSet]:
    """The images of each fixed camera as a data set, in the order of the cameras' names.

    The first group of `pattern` in the name of an image, without its suffix, is the camera: what stands before the
    number ("avenue_009", "car-park-cam3-000030"). Raises InvalidInput for an image whose name does not say it.
    """
    cameras: dict[str, DataSet] = {}
    for split in SPLITS:
        for sample in dataset.split(split):
            found = re.fullmatch(pattern, sample.image.stem)
            if found is None:
                raise InvalidInput(f"{sample.image} does not name its camera as {pattern!r} would: give the pattern")
            camera = cameras.setdefault(found[1], replace(dataset, train=[], val=[]))
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
    found = Counter(int(row[0]) for sample in samples for row in sample.boxes)
    return {name: found[index] for index, name in enumerate(names)}


def _split_report(samples: Sequence[Sample], names: tuple[str, ...]) -> SplitReport:
    background = sum(len(sample.boxes) == 0 for sample in samples)
    return SplitReport(images=len(samples), background=background, boxes=_counts(samples, names))


def _stratified(samples: list[Sample], n: int, seed: int) -> list[Sample]:
    """Always the next image of the class that so far has the smallest share of its images; background is a class."""
    if n >= len(samples):
        return samples
    order = np.random.default_rng(seed).permutation(len(samples))
    classes_of = {int(i): sorted({int(c) for c in samples[i].boxes[:, 0]}) or [-1] for i in order}
    images_of: dict[int, list[int]] = {}
    for index, classes in classes_of.items():
        for name in classes:
            images_of.setdefault(name, []).append(index)
    waiting = {name: iter(images) for name, images in images_of.items()}
    taken: dict[int, None] = {}
    shares: Counter[int] = Counter()
    while len(taken) < n:
        neediest = min(waiting, key=lambda c: (shares[c] / len(images_of[c]), len(images_of[c]), c))
        chosen = next((i for i in waiting[neediest] if i not in taken), None)
        if chosen is None:
            del waiting[neediest]
            continue
        taken[chosen] = None
        shares.update(classes_of[chosen])
    return [samples[index] for index in sorted(taken)]
