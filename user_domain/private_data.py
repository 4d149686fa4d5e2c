"""Reads the private data set. It is never written and never sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diredi.data.dataset import load
from diredi.data.sources import resolve
from diredi.errors import InvalidInput, NoLabels

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
    distinct: frozenset[str]
    """Names of which the site has said that they are classes of their own."""
    train_images: int
    held_out_images: int
    bytes: int
    notes: tuple[str, ...]
    """What the operator should know of the files, such as what was left out; never sent."""


def read_private_data(
    reference: str,
    cache: Path,
    *,
    read_labels: bool = True,
    class_names: Mapping[str, str] | None = None,
    seed: int = 0,
    train: int | None = None,
    val: int | None = None,
) -> PrivateData:
    """Read the data set as it is now, and count what it holds.

    Args:
        reference: Path of a data.yaml, or "scenes:SITE" for built-in scenes.
        cache: Folder in which built-in scenes are kept.
        read_labels: Whether to read labels and class names, or images alone.
        class_names: What classes are called elsewhere; a name that stays itself is a class of its own.
        seed: Of the built-in scenes.
        train: Number of training images of built-in scenes; None for the default.
        val: Number of held-out images of built-in scenes; None for the default.

    Raises:
        DatasetError: The data set is wrong; the message names file and line.
        NoLabels: Labels are to be read, and there is none.
        InvalidInput: There is none, a file of it cannot be read, or `class_names` has a class that it lacks.
    """
    path = resolve(reference, cache, seed=seed, train=train, val=val).absolute()
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
    try:
        size = dataset.bytes_on_disk()
    except OSError as error:
        raise InvalidInput(f"{path}: a file of the data set cannot be read ({error.strerror})") from error
    return PrivateData(
        path,
        names=dataset.label_names,
        renamed=renamed,
        distinct=frozenset(names) - frozenset(renamed),
        train_images=len(dataset.train),
        held_out_images=len(dataset.val),
        bytes=size,
        notes=dataset.notes,
    )
