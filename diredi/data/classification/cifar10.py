"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in ten classes.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009. Three forms are read. The form with pickled
Python objects is not, because unpickling runs code.

    cifar-10-binary.tar.gz      the archive as it is published, read without unpacking it
    *.bin                       its six batches, here or in cifar-10-batches-bin: a byte of label, 3072 of pixels
    train.npz, test.npz         JPEG: `jpeg` (one after the other), `offsets` (n + 1), `labels` (n), `classes` (names)
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from diredi.data.classification.base import ClassificationSet, LabelledImages, check_labelled, translate_file_errors
from diredi.data.classification.download import Remote, cache_folder, fetch
from diredi.data.images import decode_image
from diredi.errors import CorruptData, DatasetError, InvalidInput, NotFound

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

ARCHIVE: Final = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    170052171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
_INSIDE = "cifar-10-batches-bin"
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = "test_batch.bin"
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE
_LONGEST = 10_000 * _RECORD


def cifar10(folder: Path | None = None, archive: Remote = ARCHIVE) -> ClassificationSet:
    """Load CIFAR-10.

    Args:
        folder: Folder of the files. None takes the user's cache, into which the archive is downloaded if needed.
        archive: The published archive.

    Raises:
        NotFound: `folder` has none of the three forms, or a file of it is missing.
        CorruptData: A file is damaged.
        DatasetError: A file cannot be read or belongs to another set.
        Unreachable: The download failed.
        NoRoom: The disk is full.
    """
    if folder is not None:
        splits = _read_folder(folder)
        if splits is None:
            raise NotFound(
                f"{folder} holds no CIFAR-10 that is read: put {archive.name} there, or the .bin files that are in it"
            )
    else:
        folder = cache_folder("cifar10")
        splits = _read_folder(folder) or _read_archive(fetch(archive, folder))
    train, test = splits
    return ClassificationSet("cifar10", CLASSES, train, test)


def _read_folder(folder: Path) -> tuple[LabelledImages, LabelledImages] | None:
    if (folder / "train.npz").exists():
        return _read_npz(folder / "train.npz"), _read_npz(folder / "test.npz")
    for place in (folder, folder / _INSIDE):
        if (place / _TEST).exists():
            return _read_batches(place)
    archive = folder / ARCHIVE.name
    return _read_archive(archive) if archive.exists() else None


def _read_batches(folder: Path) -> tuple[LabelledImages, LabelledImages]:
    records = {}
    for name in (*_TRAIN, _TEST):
        path = folder / name
        with translate_file_errors(path), path.open("rb") as file:
            records[name] = _read_records(file, path)
    return _splits(records, folder)


def _read_archive(path: Path) -> tuple[LabelledImages, LabelledImages]:
    wanted = {f"{_INSIDE}/{name}": name for name in (*_TRAIN, _TEST)}
    records = {}
    with translate_file_errors(path), tarfile.open(path, "r:gz") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() and member.name in wanted else None
            if content is not None:
                records[wanted[member.name]] = _read_records(content, path)
    missing = sorted(set(wanted.values()) - set(records))
    if missing:
        raise CorruptData(f"{path} lacks {', '.join(missing)}: delete it and fetch it again")
    return _splits(records, path)


def _read_records(file: IO[bytes], path: Path) -> NDArray[np.uint8]:
    """Read records, uint8 [n, 3073]: the label, then red, green and blue, row by row."""
    data = file.read(_LONGEST + 1)
    if len(data) > _LONGEST or len(data) % _RECORD:
        raise DatasetError(f"a batch is no list of up to 10000 records of {_RECORD} bytes: fetch it again", path)
    return np.frombuffer(data, np.uint8).reshape(-1, _RECORD)


def _splits(records: Mapping[str, NDArray[np.uint8]], path: Path) -> tuple[LabelledImages, LabelledImages]:
    return _join((records[name] for name in _TRAIN), path), _join([records[_TEST]], path)


def _join(batches: Iterable[NDArray[np.uint8]], path: Path) -> LabelledImages:
    records = np.concatenate(list(batches))
    return check_labelled(records[:, 1:].reshape(-1, 3, _SIDE, _SIDE), records[:, 0], len(CLASSES), path)


def _read_npz(path: Path) -> LabelledImages:
    arrays = _read_arrays(path)
    jpeg, offsets, labels = arrays["jpeg"], arrays["offsets"], arrays["labels"]
    if jpeg.dtype != np.uint8 or any(a.ndim != 1 or a.dtype.kind not in "iu" for a in (jpeg, offsets, labels)):
        raise DatasetError("`jpeg`, `offsets` and `labels` must be lists, of bytes and of whole numbers", path)
    if tuple(arrays["classes"].ravel().tolist()) != CLASSES:
        raise DatasetError("`classes` are not those of CIFAR-10: name its folder", path)
    bounds = [0, *offsets.tolist()]
    if any(a > b for a, b in pairwise(bounds)) or bounds[-1] != len(jpeg):
        raise DatasetError("`offsets` must rise from 0 to the length of `jpeg`", path)
    images = [_decode(jpeg[a:b].tobytes(), path) for a, b in pairwise(offsets.tolist())]
    return check_labelled(np.array(images, np.uint8), labels, len(CLASSES), path)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with translate_file_errors(path):
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in ("jpeg", "offsets", "labels", "classes")}
        except (KeyError, ValueError, TypeError, MemoryError, RuntimeError, TokenError):
            raise DatasetError("this is not an .npz of JPEG images: fetch it again", path) from None


def _decode(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode a JPEG to uint8 [3, 32, 32]: red, green, blue."""
    try:
        image = decode_image(data)
    except InvalidInput:
        raise CorruptData(f"{path} holds an image that cannot be decoded: fetch it again") from None
    if image.shape != (_SIDE, _SIDE, 3):
        raise DatasetError(f"an image has the shape {image.shape[:2]} and not ({_SIDE}, {_SIDE}): fetch it again", path)
    return image[..., ::-1].transpose(2, 0, 1)
