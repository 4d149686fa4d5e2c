"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels, without a download.

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
    """Load the digits. The test split is always the same fifth of every class.

    Args:
        folder: Ignored; the digits come with scikit-learn.

    Raises:
        InvalidInput: scikit-learn is not installed.
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
