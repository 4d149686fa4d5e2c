"""Reads the private data set. It is never written and never sent."""

from __future__ import annotations

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
    seed: int = 0,
    train: int | None = None,
    val: int | None = None,
) -> PrivateData:
    """Read the data set as it is now, and count what it holds.

    Args:
        reference: Path of a data.yaml, or "scenes:SITE" for built-in scenes.
        cache: Folder in which built-in scenes are kept.
        read_labels: Whether to read labels and class names, or images alone.
        seed: Of the built-in scenes.
        train: Number of training images of built-in scenes; None for the default.
        val: Number of held-out images of built-in scenes; None for the default.

    Raises:
        DatasetError: The data set is wrong; the message names file and line.
        NoLabels: Labels are to be read, and there is none.
        InvalidInput: There is none, or a file of it cannot be read.
    """
    path = resolve(reference, cache, seed=seed, train=train, val=val).absolute()
    try:
        dataset = load(path, read_labels=read_labels)
    except NoLabels as error:
        raise NoLabels(f"{error}. If it has none, say --labelled false here and {WITH_ORACLE} to the cycle") from None
    try:
        size = dataset.bytes_on_disk()
    except OSError as error:
        raise InvalidInput(f"{path}: a file of the data set cannot be read ({error.strerror})") from error
    return PrivateData(path, dataset.label_names, len(dataset.train), len(dataset.val), size, dataset.notes)
