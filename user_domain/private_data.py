"""Reads the private data set. It is never written and never sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diredi.data.dataset import Dataset, load
from diredi.data.sources import resolve
from diredi.data.yolo import label_file_of
from diredi.errors import InvalidInput, NoLabels
from diredi.knowledge.jobs.specs import NoLabelFile

SAMPLES = "samples"
"""The reference to a data set that has nothing but labelled samples."""
WITH_ORACLE = "--labels oracle"
"""The option of `diredi cycle start` for sites without labels."""


@dataclass(frozen=True)
class PrivateData:
    """Hold what the service itself needs to know of the data set; jobs read the rest in processes of their own."""

    path: Path
    names: tuple[str, ...]
    """The classes, as the site wants them to be called."""
    renamed: dict[str, str]
    """Classes of the files that are called otherwise, with the new name."""
    no_label_file: NoLabelFile
    """What an image without a label file is."""
    distinct: frozenset[str]
    """Names of which the site has said that they are classes of their own."""
    train_images: int
    held_out_images: int
    bytes: int
    notes: tuple[str, ...]
    """What the operator should know of the files, such as what was left out; never sent."""

    @property
    def spec(self) -> dict[str, Any]:
        """What a job is told of the data set: the fields of a `SiteDataSpec`."""
        return {"data": self.path, "class_names": self.renamed, "no_label_file": self.no_label_file}


def read_private_data(
    reference: str,
    cache: Path,
    *,
    read_labels: bool = True,
    class_names: Mapping[str, str] | None = None,
    no_label_file: NoLabelFile = "unlabelled",
    seed: int = 0,
    train: int | None = None,
    val: int | None = None,
    join: Callable[[Path | None], Path | None] = lambda path: path,
) -> PrivateData:
    """Read the data set as it is now, and count what it holds.

    Args:
        reference: Path of a data.yaml, "scenes:SITE" for built-in scenes, or "samples" for labelled samples alone.
        cache: Folder in which built-in scenes are kept.
        read_labels: Whether to read labels and class names, or images alone.
        class_names: What classes are called elsewhere; a name that stays itself is a class of its own.
        no_label_file: What an image without a label file is.
        seed: Of the built-in scenes.
        train: Number of training images of built-in scenes; None for the default.
        val: Number of held-out images of built-in scenes; None for the default.
        join: Returns the data.yaml of a data set and the labelled samples together; told None, of these alone.

    Raises:
        DatasetError: The data set is wrong; the message names file and line.
        NoLabels: Labels are to be read, and there is none.
        InvalidInput: There is none, a file of it cannot be read, or `class_names` has a class that it lacks.
    """
    path = None if reference == SAMPLES else resolve(reference, cache, seed=seed, train=train, val=val).absolute()
    path = join(path) if read_labels else path
    if path is None:
        raise NoLabels("nobody has labelled a sample yet, and the site has no other data: label some, 20 or more")
    try:
        dataset = load(path, read_labels=read_labels)
    except NoLabels as error:
        raise NoLabels(f"{error}. If it has none, say --labelled false here and {WITH_ORACLE} to the cycle") from None
    names = dict(class_names or {}) if read_labels else {}
    renamed = {name: other for name, other in names.items() if name != other}
    if strange := [name for name in names if name not in {*dataset.names, *renamed.values()}]:
        raise InvalidInput(
            f"class_names has {strange[0]!r}, which is no class of {path} ({', '.join(dataset.names)}): correct it"
        )
    dataset = dataset.renamed(renamed)
    notes = dataset.notes
    if read_labels and no_label_file == "unlabelled":
        notes += _about_missing_files(dataset)
    try:
        size = dataset.bytes_on_disk()
    except OSError as error:
        raise InvalidInput(f"{path}: a file of the data set cannot be read ({error.strerror})") from error
    return PrivateData(
        path,
        names=dataset.label_names,
        renamed=renamed,
        no_label_file=no_label_file,
        distinct=frozenset(names) - frozenset(renamed),
        train_images=len(dataset.train),
        held_out_images=len(dataset.val),
        bytes=size,
        notes=notes,
    )


def no_data() -> PrivateData:
    """Return what a site holds that has no data but samples, before the first one is labelled."""
    return PrivateData(
        Path(), names=(), renamed={}, no_label_file="unlabelled", distinct=frozenset(), train_images=0,
        held_out_images=0, bytes=0, notes=(),
    )  # fmt: skip


def _about_missing_files(dataset: Dataset) -> tuple[str, ...]:
    images = [sample.image for sample in (*dataset.train, *dataset.val)]
    missing = sum(not label_file_of(image).is_file() for image in images)
    if not missing:
        return ()
    return (
        f"{missing} of {len(images)} images have no label file: they count as not labelled; if they show nothing, say "
        "no_label_file: background",
    )
