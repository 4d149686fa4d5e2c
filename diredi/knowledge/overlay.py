"""Overlays: batch-norm statistics of one site, put over a release that many sites share.

A release has measured the brightness and contrast of what passes through its layers on the images that taught it. On
the images of a site these are others. An overlay has the site's: some kilobytes, measured without labels and without
training. No weight changes, so every class stays what it was, and what is below the overlay stays the release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diredi.data.dataset import Dataset, Sample
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.errors import CorruptData, InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.gap_application import re_estimate
from diredi.knowledge.weight_kinds import kind_of
from diredi.store.weights import Array, WeightMap, read_metadata

SHARES: Final = (0.1, 0.3, 0.5, 1.0)
"""How much of the site's statistics is tried, the rest being the release's: few images measure them badly."""
_KEY: Final = "diredi.overlay"
_BATCH: Final = 16
_MOST_BATCHES: Final = 20


class OverlayNote(BaseModel):
    """What an overlay is of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_id: str
    """Digest of the model that it is for, and for no other."""
    share: float = Field(gt=0, le=1)
    """How much of the statistics is the site's."""
    images: int = Field(ge=1)
    """How many images of the site they were measured on."""


@dataclass(frozen=True)
class Overlay:
    """Batch-norm statistics for one model, and no weight of it.

    Example:
        >>> import diredi
        >>> overlay = diredi.Overlay.load("site.overlay")                     # doctest: +SKIP
        >>> here = overlay.apply(diredi.load("student.safetensors"))          # doctest: +SKIP
    """

    note: OverlayNote
    statistics: WeightMap
    """Mean and variance of each layer, as the model names them."""

    def apply(self, model: Detector) -> Detector:
        """Return a copy of a model with these statistics in the place of its own.

        Args:
            model: The model that the overlay is for.

        Returns:
            The copy. Its weights are those of the model.

        Raises:
            InvalidInput: It is for another model.
        """
        if model.digest != self.note.base_id:
            raise InvalidInput(
                f"the overlay is for model {self.note.base_id[:19]}, this one is {model.digest[:19]}: measure it again"
            )
        return _with_statistics(model, self.statistics)

    def save(self, path: Path | str) -> str:
        """Write the overlay as safetensors, whole or not at all.

        Args:
            path: Where the file goes.

        Returns:
            The digest "sha256:..." of the file.
        """
        return self.statistics.save(Path(path), {_KEY: self.note.model_dump_json()})

    @classmethod
    def load(cls, path: Path | str) -> Overlay:
        """Read an overlay.

        Args:
            path: The file that `save` wrote.

        Returns:
            The overlay, which says which model it is for.

        Raises:
            CorruptData: The file is damaged, or something else.
        """
        path = Path(path)
        try:
            note = OverlayNote.model_validate_json(read_metadata(path).get(_KEY, ""))
        except ValidationError:
            raise CorruptData(f"{path} is no overlay: measure it again") from None
        return cls(note, WeightMap.load(path))


@dataclass(frozen=True)
class FittedOverlay:
    """What an overlay does on a site's held-out images, and the overlay where that is good."""

    overlay: Overlay | None
    """None where the model is better without."""
    before: DetectionMetrics
    """The model alone."""
    after: DetectionMetrics
    """With the overlay that looked best on the training images; equal to `before` where none did."""


def fit_overlay(model: Detector, data: Dataset, shares: Sequence[float] = SHARES) -> FittedOverlay:
    """Measure a model's batch-norm statistics on a site's training images, and judge them on its held-out ones.

    Nothing is trained. The share is chosen on the training images, whose labels say which serves best, so that the
    held-out images judge what they have not chosen.

    Args:
        model: The model; it is left as it was.
        data: The site's images with labels. Classes that the model does not know are never found.
        shares: How much of the site's statistics to try, each more than 0 and at most 1.

    Returns:
        The overlay if it finds more on the held-out images (mAP50), and figures. A model without batch norm has none.

    Raises:
        InvalidInput: There are no labelled boxes.
        DatasetError: An image cannot be read.

    Examples:
        >>> import diredi
        >>> fitted = diredi.fit_overlay(student, site)                        # doctest: +SKIP
        >>> if fitted.overlay is not None:                                    # doctest: +SKIP
        ...     diredi.export(fitted.overlay.apply(student), "here.onnx")
    """
    before = evaluate(model, data)
    overlay = choose_overlay(model, data, shares)
    if overlay is None:
        return FittedOverlay(None, before, before)
    after = evaluate(overlay.apply(model), data)
    return FittedOverlay(overlay if after.map50 > before.map50 else None, before, after)


def choose_overlay(model: Detector, data: Dataset, shares: Sequence[float] = SHARES) -> Overlay | None:
    """Return the overlay that serves a model best on a site's training images; None where none is better than none.

    Args:
        model: The model.
        data: The site's images with labels.
        shares: How much of the site's statistics to try.
    """
    measured = measure_statistics(model, data.train)
    if not measured:
        return None
    own, best, found = model.weights(), evaluate(model, data, split="train").map50, None
    for share in shares:
        statistics = WeightMap({name: _mixed(own[name], array, share) for name, array in measured.items()})
        quality = evaluate(_with_statistics(model, statistics), data, split="train").map50
        if quality > best:
            note = OverlayNote(base_id=model.digest, share=share, images=len(data.train))
            best, found = quality, Overlay(note, statistics)
    return found


def measure_statistics(model: Detector, samples: Sequence[Sample]) -> WeightMap:
    """Return the batch-norm statistics of a model on some images; empty for a model without batch norm.

    Args:
        model: The model; it is left as it was.
        samples: The images; their labels are not read.
    """
    copy = registry.from_weights(model.spec, model.weights(), model.device)
    re_estimate(copy, samples, steps=min(_MOST_BATCHES, max(1, len(samples) // _BATCH)))
    return copy.weights().selected(lambda name: kind_of(name, "float32").is_statistic)


def _mixed(own: Array, measured: Array, share: float) -> Array:
    return np.asarray((1 - share) * own + share * measured, own.dtype)


def _with_statistics(model: Detector, statistics: WeightMap) -> Detector:
    return registry.from_weights(model.spec, WeightMap({**model.weights(), **statistics}), model.device)
