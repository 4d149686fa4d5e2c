"""Data sets of images with boxes: load, check, select and split them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from diredi.data import yolo
from diredi.data.images import bits_per_value, read_image
from diredi.data.label_search import explain_missing
from diredi.data.notes import Notes, counted_noun
from diredi.data.yolo import Boxes
from diredi.errors import DatasetError, InvalidInput, NoLabels
from diredi.labels import Judge, LabelSpace
from diredi.progress import OnProgress, report

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

_SMALL = 10
"""Ultralytics leaves images out of which a side has fewer pixels."""
_DARK = 20
"""The highest value of an image that looks black, of 255."""
_DECODERS = min(os.cpu_count() or 1, 8)
"""Threads that decode images: OpenCV does it without Python's lock."""


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
    notes: tuple[str, ...] = ()
    """What a user should know of the files and what is no fault: a sentence each, such as what was left out."""
    judged_by: Judge = "labels"
    """Who says what is on the held-out images: labels that came with them, or an oracle. What an oracle's answers
    measure is an estimate."""

    def __repr__(self) -> str:
        """Return the numbers that a person asks for first."""
        names = f"{len(self.names)} classes" if len(self.names) > 8 else ", ".join(self.names)
        notes = f"; {counted_noun(len(self.notes), 'note')}" if self.notes else ""
        return f"<{type(self).__name__} {self.root}: {len(self.train)} train, {len(self.val)} val; {names}{notes}>"

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
    notes: tuple[str, ...] = ()
    """What a user should know and what is no fault: a sentence each."""

    @property
    def ok(self) -> bool:
        """Whether the data set can be used."""
        return not self.problems


def load(
    path: Path | str,
    splits: Sequence[Split] = SPLITS,
    *,
    labelled: bool = True,
    read_labels: bool = True,
    decode: bool = False,
) -> Dataset:
    """Read a data set in Ultralytics' YOLO format: its `data.yaml` and all its labels.

    All images and boxes that Ultralytics reads are read. Images stay on disk; `diredi data check` decodes them too, and
    tells all faults at once.

    Args:
        path: The `data.yaml`, or the folder that holds it.
        splits: The splits that are wanted, of "train" and "val".
        labelled: Whether a wanted split without a single box is a fault, as where a model is to learn from it.
        read_labels: Whether to read labels and class names at all. Without, there need be neither: the data set has no
            class and no box, for `diredi.pseudo_label` to fill in.
        decode: Whether to decode every image as well, so that a broken one is told before a training and not in it.

    Returns:
        The data set, with `notes` of what was left out; a split that is not wanted is empty.

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

    notes = Notes()
    with _system_errors(Path(path)):
        description = yolo.read_description(Path(path), stop, notes, named=read_labels)
        samples = _read_splits(description, splits, stop, notes, labelled=labelled, read_labels=read_labels)
    if decode:
        _check_images([sample.image for found in samples.values() for sample in found], stop, notes, None)
    return Dataset(
        root=description.root,
        names=description.names,
        train=samples.get("train", []),
        val=samples.get("val", []),
        notes=notes.sentences(description.path),
    )


def check(path: Path, *, read_labels: bool = True, on_progress: OnProgress | None = None) -> CheckReport:
    """Check a data set and decode all of its images.

    Args:
        path: The `data.yaml`, or the folder that holds it.
        read_labels: Whether there are labels and class names to check, as for `load`.
        on_progress: Called with the progress after each image.

    Returns:
        A report with all faults. Faults are never raised.
    """
    faults: list[DatasetError] = []
    notes = Notes()
    names: tuple[str, ...] = ()
    splits: dict[str, SplitReport] = {}
    path = Path(path)
    try:
        with _system_errors(path):
            path = yolo.find_description(path)
            description = yolo.read_description(path, faults.append, notes, named=read_labels)
            names = description.names
            samples = _read_splits(
                description, SPLITS, faults.append, notes, labelled=read_labels, read_labels=read_labels
            )
    except DatasetError as error:
        faults.append(error)
    else:
        splits = {split: _split_report(found, names) for split, found in samples.items()}
        images = [sample.image for found in samples.values() for sample in found]
        _check_images(images, faults.append, notes, on_progress)
    problems = [Problem(message=str(fault), path=fault.path, line=fault.line) for fault in faults]
    return CheckReport(path=path, names=names, splits=splits, problems=problems, notes=notes.sentences(path))


def _note_unlabelled_folders(samples: Sequence[Sample], notes: Notes) -> None:
    """Note the folders, such as of one camera of several, in which no image has a label file."""
    labelled = {sample.image.parent for sample in samples if len(sample.boxes)}
    unlabelled: dict[Path, int] = {}
    for sample in samples:
        folder = sample.image.parent
        if labelled and folder not in labelled:
            unlabelled[folder] = unlabelled.get(folder, 0) + 1
            if yolo.label_file_of(sample.image).is_file():
                labelled.add(folder)
                del unlabelled[folder]
    for folder, images in unlabelled.items():
        notes.add(f"{counted_noun(images, 'image')} in {folder} and not one label file: taken as showing nothing")


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a file or folder, such as that nobody may read it, into a fault of the data set."""
    try:
        yield
    except OSError as error:
        place = Path(os.fsdecode(error.filename)) if error.filename else path
        raise DatasetError(f"this cannot be read ({error.strerror}): check the path", place) from None
    except ValueError as error:  # a path with a character that no path may have
        raise DatasetError(f"a path in it cannot be used ({error}): correct it", path) from None


def _read_splits(
    description: yolo.Description,
    splits: Sequence[Split],
    sink: yolo.Sink,
    notes: Notes,
    *,
    labelled: bool,
    read_labels: bool = True,
) -> dict[Split, list[Sample]]:
    if read_labels:
        samples = {split: _read_split(description, split, sink, notes, labelled=labelled) for split in splits}
    else:
        samples = {
            split: _without_labels(_images_of(description, split, sink, notes), split, notes) for split in splits
        }
    learned, held_out = (_files_of(samples.get(split, ())) for split in SPLITS)
    if shared := learned & held_out:
        notes.add(
            f"{len(shared)} of {counted_noun(len(held_out), 'image')} of `val:` in `train:` too: "
            "a model would be measured on what it has learned"
        )
    if not read_labels:
        return samples
    for label in yolo.unused_label_files(sample.image for found in samples.values() for sample in found):
        notes.count("label file", "without an image of that name: not used", label)
    return samples


def _read_split(
    description: yolo.Description, split: Split, sink: yolo.Sink, notes: Notes, *, labelled: bool
) -> list[Sample]:
    faults: list[DatasetError] = []

    def collect(error: DatasetError) -> None:
        faults.append(error)
        sink(error)

    images = _images_of(description, split, collect, notes)
    labels = [yolo.label_file_of(image) for image in images]
    first_of: dict[Path, Path] = {}
    samples = []
    for image, label in zip(images, labels, strict=True):
        samples.append(Sample(image, yolo.read_labels(label, description, collect, notes)))
        first = first_of.setdefault(label, image)
        if first != image:
            notes.count("image", f"with the same label file as {first.name}: both have its boxes", image)
        elif first is not image:
            notes.count("image", f"named again in `{split}:`: used as often as named", image)
    _note_unlabelled_folders(samples, notes)
    if labelled and images and not faults and not any(len(sample.boxes) for sample in samples):
        why = explain_missing(images, labels, description.root, split)
        count = counted_noun(len(images), "image")
        sink(NoLabels(f"`{split}:` has no labelled box in {count}: {why}", description.path))
    return samples


def _images_of(description: yolo.Description, split: Split, sink: yolo.Sink, notes: Notes) -> list[Path]:
    """List the images of a split. That there is none is a fault."""
    if split not in description.splits:
        sink(DatasetError(f"`{split}:` is missing: name the folder with its images", description.path))
        return []
    faults: list[DatasetError] = []

    def collect(error: DatasetError) -> None:
        faults.append(error)
        sink(error)

    places = description.splits[split]
    images = [image for place in places for image in yolo.list_images(place, split, description, collect, notes)]
    if not images and not faults:
        listed = ", ".join(str(place) for place in places)
        sink(DatasetError(f"`{split}:` has no images in {listed}: add some or correct the path", description.path))
    return images


def _without_labels(images: Sequence[Path], split: Split, notes: Notes) -> list[Sample]:
    for image, times in Counter(images).items():
        if times > 1:
            notes.count("image", f"named again in `{split}:`: used as often as named", image)
    return [Sample(image, np.zeros((0, 5), np.float32)) for image in images]


def _files_of(samples: Iterable[Sample]) -> set[Path]:
    """Return the images without links on their way, which two splits may take to one folder."""
    folders: dict[Path, Path] = {}
    for sample in samples:
        folder = sample.image.parent
        if folder not in folders:
            folders[folder] = folder.resolve()
    return {folders[sample.image.parent] / sample.image.name for sample in samples}


def _check_images(images: Sequence[Path], sink: yolo.Sink, notes: Notes, on_progress: OnProgress | None) -> None:
    with ThreadPoolExecutor(_DECODERS) as pool:
        try:
            for index, (image, found) in enumerate(zip(images, pool.map(_look_at, images), strict=True)):
                if isinstance(found, DatasetError):
                    sink(found)
                elif found:
                    notes.count("image", found, image)
                report(on_progress, "check", (index + 1) / len(images), image.name)
        finally:
            pool.shutdown(cancel_futures=True)


def _look_at(path: Path) -> DatasetError | str:
    """Decode an image, and return a remark on it, which is empty for most."""
    try:
        image = read_image(path)
    except DatasetError as error:
        return error
    if min(image.shape[:2]) < _SMALL:
        return f"smaller than {_SMALL} pixels: used here, left out by Ultralytics"
    if image.max() <= _DARK and bits_per_value(path) == 16:
        return "with 16 bits of which the upper ones are empty: nearly black here as in Ultralytics, scale to 8 bits"
    return ""


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
