"""Tests a new model before it may replace the one that runs."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from diredi.detectors.predictor import Image, Predictor
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput

PASSES = 2


class LoadedModel(Predictor, Protocol):
    """Predict, and say which detector this is."""

    spec: DetectorSpec


def warm_up(model: Predictor, frame: Image | None) -> None:
    """Let a model detect beside the one that runs.

    Args:
        model: The new model.
        frame: The last live frame; None for a grey one.

    Raises:
        InvalidInput: The model fails, or finds what cannot be.
    """
    image = np.full((480, 640, 3), 114, np.uint8) if frame is None else frame
    try:
        for _ in range(PASSES):
            detections = model.predict([image], 0.001)[0]
    except Exception as error:  # nothing that a foreign model does may end the updater
        raise InvalidInput(f"the model fails on a frame ({type(error).__name__}: {error}): export it again") from error
    if not (np.isfinite(detections.boxes).all() and np.isfinite(detections.scores).all()):
        raise InvalidInput("the model finds boxes that are not numbers: export it again")
    if len(detections) and not 0 <= int(detections.classes.min()) <= int(detections.classes.max()) < len(model.labels):
        raise InvalidInput("the model finds classes that it has no name for: export it again")
