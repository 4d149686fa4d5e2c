"""Fashion-MNIST: 70,000 grey images of clothing, 28 x 28 pixels (Xiao, Rasul, Vollgraf, arXiv:1708.07747)."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from diredi.data.classification.base import ClassificationSet, LabelledImages, check_labelled, translate_file_errors
from diredi.data.classification.download import Remote, cache_folder, fetch
from diredi.errors import CorruptData, DatasetError

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

_HOST = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"  # it has no https: the digests guard the content
FILES: Final = (
    Remote(
        f"{_HOST}/train-images-idx3-ubyte.gz",
        26421880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    Remote(
        f"{_HOST}/train-labels-idx1-ubyte.gz",
        29515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    Remote(
        f"{_HOST}/t10k-images-idx3-ubyte.gz",
        4422102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    Remote(
        f"{_HOST}/t10k-labels-idx1-ubyte.gz",
        5148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
_MOST = 60_000
_SIDE = 28


def fashion_mnist(folder: Path | None = None, files: Sequence[Remote] = FILES) -> ClassificationSet:
    """Load Fashion-MNIST.

    Args:
        folder: Folder of the four files. None takes the user's cache, into which missing files are downloaded.
        files: The published files.

    Raises:
        NotFound: A file is missing in `folder`.
        CorruptData: A file is damaged.
        DatasetError: A file cannot be read or belongs to another set.
        Unreachable: A download failed.
        NoRoom: The disk is full.
    """
    if folder is None:
        folder = cache_folder("fashion_mnist")
        for file in files:
            fetch(file, folder)
    return ClassificationSet("fashion_mnist", CLASSES, _read_split(folder, "train"), _read_split(folder, "t10k"))


def _read_split(folder: Path, split: str) -> LabelledImages:
    path = folder / f"{split}-labels-idx1-ubyte.gz"
    images = _read(folder / f"{split}-images-idx3-ubyte.gz", (_SIDE, _SIDE))
    return check_labelled(images[:, None], _read(path, ()), len(CLASSES), path)


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read uint8 [n, *shape] from an IDX file: two zeros, 8 for bytes, the number of dimensions, sizes, bytes."""
    kind = bytes([0, 0, 8, 1 + len(shape)])
    with translate_file_errors(path), gzip.open(path) as file:
        magic, sizes = file.read(4), file.read(4 * kind[3])
        if magic != kind or len(sizes) < 4 * kind[3]:
            raise DatasetError("this is not an IDX file of bytes: fetch it again", path)
        n, *rest = struct.unpack(f">{kind[3]}I", sizes)
        if n > _MOST or tuple(rest) != shape:
            raise DatasetError(f"there are {[n, *rest]} bytes and not up to {[_MOST, *shape]}: fetch it again", path)
        expected = math.prod((n, *shape))
        data = file.read(expected + 1)
    if len(data) != expected:
        raise CorruptData(f"{path} holds another number of bytes than it says: delete it and fetch it again")
    return np.frombuffer(data, np.uint8).reshape(n, *shape).copy()
