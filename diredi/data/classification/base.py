"""Labelled images, sets of them, and the errors of reading them from files."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diredi.errors import CorruptData, DatasetError, NotFound


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and the class of each."""

    images: NDArray[np.uint8]
    """uint8 [n, channels, height, width], contiguous; three channels are red, green, blue."""
    labels: NDArray[np.int64]
    """int64 [n], positions in the set's `classes`."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: NDArray[np.int64]) -> LabelledImages:
        """Copy the images and labels at `indices`, int64 [m], in this order."""
        return LabelledImages(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class ClassificationSet:
    """Images of equal size in two splits, one to learn from and one to measure with."""

    name: str
    classes: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages


def check_labelled(images: NDArray[np.uint8], labels: NDArray[np.integer], classes: int, path: Path) -> LabelledImages:
    """Check that images and labels fit each other.

    Args:
        images: uint8 [n, channels, height, width].
        labels: Integers [n].
        classes: Number of classes.
        path: File that errors name.

    Raises:
        DatasetError: There are no images, another number of labels, or a label that is not a class.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise DatasetError(f"there are {len(labels)} labels of {len(images)} images: restore the file", path)
    if labels.min() < 0 or labels.max() >= classes:
        raise DatasetError(f"a label is not within 0 to {classes - 1}: this is another data set, name its folder", path)
    return LabelledImages(np.ascontiguousarray(images), labels.astype(np.int64))


@contextmanager
def translate_file_errors(path: Path) -> Iterator[None]:
    """Turn errors of reading a file within a block into NotFound, CorruptData or DatasetError that name the file."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} does not exist: name the folder that contains it") from None
    except (BadGzipFile, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptData(f"{path} is damaged ({error}): delete it and fetch it again") from None
    except OSError as error:
        raise DatasetError(
            f"file cannot be read ({error.strerror}): check the path and its permissions", path
        ) from None
