"""Detectors as peers: several that answer as one, so that a detector may learn from all its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diredi.detectors.base import Detector, Outputs
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput
from diredi.store.weights import WeightMap

_LEAST = 1e-6


class Together:
    """The average of what several detectors say, as the holistic scheme has it: the mean of their scores, and of their
    distributions over the bins of a box. What their necks hold is the first one's, for features of several cannot be
    averaged; use no loss that compares features.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        """Raises InvalidInput for none at all, or detectors of other label spaces or image sizes than the first's."""
        if not detectors:
            raise InvalidInput("nobody to learn from: name one detector or more")
        self.detectors = list(detectors)
        for other in self.detectors[1:]:
            if (other.spec.labels, other.spec.image_size) != (self.spec.labels, self.spec.image_size):
                raise InvalidInput("detectors that answer as one need one label space and one image size")

    @property
    def spec(self) -> DetectorSpec:
        return self.detectors[0].spec

    @property
    def device(self) -> torch.device:
        return self.detectors[0].device

    def forward(self, images: Tensor) -> Outputs:
        """Raises InvalidInput where detectors look at different grids or cut boxes into different bins."""
        said = [detector.forward(images) for detector in self.detectors]
        first = said[0]
        if any(one.box_logits.shape != first.box_logits.shape for one in said):
            raise InvalidInput("detectors that answer as one need one grid and as many bins: use one family of them")
        scores = torch.stack([one.class_logits.sigmoid() for one in said]).mean(0)
        boxes = torch.stack([one.box_logits.softmax(-1) for one in said]).mean(0) if _has_bins(first) else None
        return Outputs(
            scores.logit(_LEAST),
            torch.stack([one.box_logits for one in said]).mean(0) if boxes is None else boxes.clamp(min=_LEAST).log(),
            first.anchors,
            first.strides,
            first.features,
        )

    def weights(self) -> WeightMap:
        """Of all of them."""
        return WeightMap({f"{n}/{k}": v for n, one in enumerate(self.detectors) for k, v in one.weights().items()})


def _has_bins(outputs: Outputs) -> bool:
    """Families without them regress distances, whose mean is the mean."""
    return outputs.box_logits.shape[-1] > 1
