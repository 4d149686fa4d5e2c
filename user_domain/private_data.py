"""The private data set: read, counted, measured; never written, never sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diredi.data.dataset import load
from diredi.data.sources import resolve
from diredi.errors import DatasetError, InvalidInput


@dataclass(frozen=True)
class PrivateData:
    """What the service itself needs to know of it; the work reads the rest in a process of its own."""

    path: Path
    names: tuple[str, ...]
    train_images: int
    held_out_images: int
    bytes: int


def read_private_data(
    reference: str, cache: Path, *, seed: int = 0, train: int | None = None, val: int | None = None
) -> PrivateData:
    """Counts what is there now. Raises DatasetError that names file and line, or InvalidInput when there is none."""
    path = resolve(reference, cache, seed=seed, train=train, val=val).absolute()
    dataset = load(path)
    for split, samples in (("train", dataset.train), ("val", dataset.val)):
        if not samples:
            raise DatasetError(f"the {split} split holds no images: a site needs some to learn and some to judge", path)
    try:
        size = dataset.bytes_on_disk()
    except OSError as error:
        raise InvalidInput(f"{path}: a file of the data set cannot be read ({error.strerror})") from error
    return PrivateData(path, dataset.label_names, len(dataset.train), len(dataset.val), size)
