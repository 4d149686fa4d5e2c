"""Handwritten digits, 1797 of 8 x 8 pixels, that come with scikit-learn: a set for which nothing is downloaded.

They are the test split of Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diredi.data.classification.base import ClassificationSet, LabelledImages
from diredi.errors import InvalidInput

CLASSES = tuple("0123456789")
_TEST_SHARE = 0.2


def digits(folder: Path | None = None) -> ClassificationSet:
    """A fifth of every class, always the same, is the test split. Nothing is read from `folder`.

    Raises InvalidInput when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise InvalidInput(
            "digits need the package scikit-learn, which is not installed: run `pip install 'diredi[peers]'`"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    whole = LabelledImages(images, labels.astype(np.int64))
    order = np.random.default_rng([0]).permutation(len(whole))
    of_class = [order[whole.labels[order] == label] for label in range(len(CLASSES))]
    test = np.sort(np.concatenate([indices[: round(_TEST_SHARE * len(indices))] for indices in of_class]))
    return ClassificationSet("digits", CLASSES, whole.select(np.setdiff1d(order, test)), whole.select(test))
