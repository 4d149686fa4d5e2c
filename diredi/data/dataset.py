"""Data sets of images with boxes: load, check, select and split them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from diredi.data import yolo
from diredi.data.images import read_image
from diredi.data.yolo import Boxes
from diredi.errors import DatasetError, InvalidInput
from diredi.labels import LabelSpace
from diredi.progress import OnProgress, report

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
class Dataset:
    """Labelled images in two splits, `train` to learn from and `val` to measure on; class ids are positions in `names`.

    Images stay on disk until somebody reads them.
    """

    root: Path
    """Folder that the images lie in."""
    names: tuple[str, ...]
    """Class names in the order of their ids."""
    train: list[Sample]
    """Samples to learn from."""
    val: list[Sample]
    """Held-out samples to measure with."""

    def __repr__(self) -> str:
        """Return the numbers that a person asks for first."""
        names = f"{len(self.names)} classes" if len(self.names) > 8 else ", ".join(self.names)
        return f"<{type(self).__name__} {self.root}: {len(self.train)} train, {len(self.val)} val; {names}>"

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names."""
        return self.names

    def split(self, split: Split) -> list[Sample]:
        """Return the samples of a split.

        Args:
            split: "train" or "val".
        """
        return self.train if split == "train" else self.val

    def counts(self, split: Split) -> dict[str, int]:
        """Return the number of boxes of every class, in the order of their ids, classes without one included.

        Args:
            split: "train" or "val".
        """
        return _counts(self.split(split), self.names)

    def bytes_on_disk(self) -> int:
        """Return the bytes of images and label files."""
        images = [sample.image for sample in (*self.train, *self.val)]
        files = {*images, *(label for image in images if (label := yolo.label_file_of(image)).exists())}
        return sum(file.stat().st_size for file in files)

    def sample(self, images: int, seed: int = 0, val: int = 0) -> Dataset:
        """Draw some images so that every class keeps its share of them, rare classes first: a coreset.

        Args:
            images: How many of `train`; more than there are gives all of them.
            seed: Equal seeds draw equal images.
            val: How many of `val`, drawn alike. A coreset needs none: what a site learns must not be what the cloud
                measures on.

        Returns:
            A data set of the drawn images, in the order that they have here.

        Examples:
            >>> from diredi.data.dataset import Dataset, Sample
            >>> few, many = np.zeros((1, 5), np.float32), np.ones((1, 5), np.float32)
            >>> boxes = [few] * 10 + [many] * 90
            >>> whole = Dataset(Path(), ("few", "many"), [Sample(Path(f"{i}.jpg"), b) for i, b in enumerate(boxes)], [])
            >>> whole.sample(20).counts("train")
            {'few': 2, 'many': 18}
        """
        train, held_out = _stratified(self.train, images, seed), _stratified(self.val, val, seed + 1)
        return replace(self, train=train, val=held_out)

    def renamed(self, names: Mapping[str, str]) -> Dataset:
        """Return the same images with other names for some classes, as where a site calls a known class its own way.

        Args:
            names: Old name to new one. Two classes that get one name become one class.

        Raises:
            InvalidInput: An old name is not one of this data set's.

        Examples:
            >>> site = Dataset(Path(), ("lorry", "car"), [], [])
            >>> site.renamed({"lorry": "truck"}).names
            ('truck', 'car')
        """
        strange = [name for name in names if name not in self.names]
        if strange:
            raise InvalidInput(f"data set {self.root} has no class {strange[0]!r}: it has {', '.join(self.names)}")
        new = [names.get(name, name) for name in self.names]
        labels = LabelSpace.of(dict.fromkeys(new))
        return replace(self._with_ids(labels.ids_of(new)), names=labels.names)

    def with_labels(self, labels: LabelSpace) -> Dataset:
        """Return the same boxes with the ids of a label space.

        Args:
            labels: A label space that has all of this set's classes, and maybe more.

        Raises:
            InvalidInput: A class of this set is not in `labels`.
        """
        missing = [name for name in self.names if name not in labels.names]
        if missing:
            raise InvalidInput(
                f"data set {self.root} has classes that the label space lacks ({', '.join(missing)}): "
                f"rename them in data.yaml or let the label space grow"
            )
        return replace(self._with_ids(labels.ids_of(self.names)), names=labels.names)

    def by_camera(self, pattern: str = r"(.+)[-_]\d+") -> dict[str, Dataset]:
        """Split the data set by fixed camera.

        Args:
            pattern: A regular expression for the name of an image without its suffix. Its first group is the camera: by
                default what stands before the number ("avenue_009", "car-park-cam3-000030").

        Returns:
            A data set for each camera, sorted by the cameras' names.

        Raises:
            InvalidInput: The name of an image does not match the pattern.
        """
        cameras: dict[str, Dataset] = {}
        for split in SPLITS:
            for sample in self.split(split):
                match = re.fullmatch(pattern, sample.image.stem)
                if match is None:
                    raise InvalidInput(
                        f"{sample.image} does not match the pattern of cameras {pattern!r}: give another"
                    )
                camera = cameras.setdefault(match[1], replace(self, train=[], val=[]))
                camera.split(split).append(sample)
        return dict(sorted(cameras.items()))

    def _with_ids(self, new: Sequence[int]) -> Dataset:
        ids = np.asarray(new, np.float32)

        def changed(sample: Sample) -> Sample:
            boxes = sample.boxes.copy()
            boxes[:, 0] = ids[boxes[:, 0].astype(np.int64)]
            return replace(sample, boxes=boxes)

        return replace(self, train=[changed(s) for s in self.train], val=[changed(s) for s in self.val])


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


def load(path: Path | str, splits: Sequence[Split] = SPLITS) -> Dataset:
    """Read a data set in Ultralytics' YOLO format: its `data.yaml` and all its labels.

    Images are not decoded here; `diredi data check` does that, and tells all faults at once.

    Args:
        path: The `data.yaml`.
        splits: The splits that are wanted, of "train" and "val".

    Returns:
        The data set; a split that is not wanted is empty.

    Raises:
        DatasetError: The first fault, by file and line; a split that is wanted and has no image is a fault.

    Examples:
        >>> import diredi
        >>> site = diredi.load_dataset("site/data.yaml")               # doctest: +SKIP
        >>> site.counts("train")                                       # doctest: +SKIP
        {'person': 112, 'forklift': 57}
    """

    def stop(error: DatasetError) -> None:
        raise error

    description = yolo.read_description(Path(path), stop)
    samples = {split: _samples(description, split, stop) for split in splits}
    return Dataset(description.root, description.names, samples.get("train", []), samples.get("val", []))


def check(path: Path, *, on_progress: OnProgress | None = None) -> CheckReport:
    """Check a data set and decode all of its images.

    Args:
        path: The `data.yaml`.
        on_progress: Called with the progress after each image.

    Returns:
        A report with all faults. Faults are never raised.
    """
    faults: list[DatasetError] = []
    names: tuple[str, ...] = ()
    splits: dict[str, SplitReport] = {}
    try:
        description = yolo.read_description(Path(path), faults.append)
    except DatasetError as error:
        faults.append(error)
    else:
        names = description.names
        samples = {split: _samples(description, split, faults.append) for split in SPLITS}
        splits = {split: _split_report(samples[split], names) for split in SPLITS}
        _check_images([sample.image for split in SPLITS for sample in samples[split]], faults.append, on_progress)
    problems = [Problem(message=str(fault), path=fault.path, line=fault.line) for fault in faults]
    return CheckReport(path=Path(path), names=names, splits=splits, problems=problems)


def _samples(description: yolo.Description, split: Split, sink: yolo.Sink) -> list[Sample]:
    if split not in description.splits:
        sink(DatasetError(f"`{split}:` is missing: name the folder with its images", description.path))
        return []
    images = dict.fromkeys(
        image for place in description.splits[split] for image in yolo.list_images(place, split, description, sink)
    )
    if not images:
        places = ", ".join(str(place) for place in description.splits[split])
        sink(DatasetError(f"`{split}:` has no images in {places}: add some or correct the path", description.path))
    classes = len(description.names)
    return [Sample(image, yolo.read_labels(yolo.label_file_of(image), classes, sink)) for image in images]


def _check_images(images: Sequence[Path], sink: yolo.Sink, on_progress: OnProgress | None) -> None:
    for index, image in enumerate(images):
        try:
            read_image(image)
        except DatasetError as error:
            sink(error)
        report(on_progress, "check", (index + 1) / len(images), image.name)


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
