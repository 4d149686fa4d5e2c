"""Sets of labelled images to classify, for learning between peers. No torch.

    found = load("digits")
    load("cifar10", Path("data/cifar-10-batches-bin")).train.images    # [50000, 3, 32, 32], uint8

A set is one function in a file beside this one and one line in SETS.
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
    """The set of that name, from `folder` or, without one, from the user's cache, downloaded the first time.

    Raises InvalidInput with the names that there are; NotFound, CorruptData and DataSetError for files that are
    missing, damaged or of another set; Unreachable, NoRoom when a download fails.
    """
    if name not in SETS:
        raise InvalidInput(f"there is no set {name!r} of images to classify: use {', '.join(sorted(SETS))}")
    return SETS[name](None if folder is None else folder.expanduser())
