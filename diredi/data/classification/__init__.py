"""Sets of labelled images for classification, which peers learn. No torch.

    digits = load("digits")
    load("cifar10", Path("data/cifar-10-batches-bin")).train.images    # uint8 [50000, 3, 32, 32]

To add a set, write its function in a file beside this one and add a line to SETS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from diredi.data.classification.base import ClassificationSet, LabelledImages
from diredi.data.classification.cifar10 import cifar10
from diredi.data.classification.digits import digits
from diredi.data.classification.fashion_mnist import fashion_mnist
from diredi.errors import InvalidInput

SETS: Final[dict[str, Callable[[Path | None], ClassificationSet]]] = {
    "digits": digits,
    "cifar10": cifar10,
    "fashion_mnist": fashion_mnist,
}

__all__ = ["SETS", "ClassificationSet", "LabelledImages", "load"]


def load(name: str, folder: Path | None = None) -> ClassificationSet:
    """Load a set of labelled images.

    Args:
        name: Name in SETS.
        folder: Folder of the files. None takes the user's cache, into which missing files are downloaded.

    Returns:
        The set.

    Raises:
        InvalidInput: The name is unknown; the message lists those that exist.
        NotFound: A file is missing in `folder`.
        CorruptData: A file is damaged.
        DatasetError: A file cannot be read or belongs to another set.
        Unreachable: A download failed.
        NoRoom: The disk is full.
    """
    if name not in SETS:
        raise InvalidInput(f"there is no set {name!r} of images to classify: use {', '.join(sorted(SETS))}")
    return SETS[name](None if folder is None else folder.expanduser())
