"""A model proves that it detects before it may take the place of the one that runs."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from diredi.detectors.predictor import Image, Predictor
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput

PASSES = 2


class LoadedModel(Predictor, Protocol):
    """A predictor that says which detector it is."""

    spec: DetectorSpec


def warm_up(model: Predictor, frame: Image | None) -> None:
    """Runs `model` beside whatever runs. Raises InvalidInput when it fails or says what no detector says."""
    image = np.full((480, 640, 3), 114, np.uint8) if frame is None else frame
    try:
        for _ in range(PASSES):
            found = model.predict([image], 0.001)[0]
    except Exception as error:  # nothing that a foreign model does may end the updater
        raise InvalidInput(f"the model fails on a frame ({type(error).__name__}: {error}): export it again") from error
    if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise InvalidInput("the model finds boxes that are not numbers: export it again")
    if len(found) and not 0 <= int(found.classes.min()) <= int(found.classes.max()) < len(model.labels):
        raise InvalidInput("the model finds classes that it has no name for: export it again")
