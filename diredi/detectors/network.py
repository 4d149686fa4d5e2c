"""What every family of torch networks shares: weights in and out, a head that grows, and from images to boxes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from diredi.detectors.base import Outputs, Targets
from diredi.detectors.postprocess import decode, grid, prepare
from diredi.detectors.predictor import Detections, Image
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace
from diredi.store.blobs import digest_of_file
from diredi.store.weights import WeightMap

PREDICT_BATCH = 32
HIGHEST_PRIOR = 0.02  # where a small picture has but a few anchors
BATCH_NORM_MOMENTUM = 0.1  # families' own 0.03 needs more steps than a site has to forget the untrained statistics
MOST_GROUPS, LEAST_CHANNELS = 32, 4  # of a group norm: Wu & He, "Group Normalization", ECCV 2018, section 4.1


class NetworkDetector(ABC):
    """One network with its spec. Starts in eval mode; the trainer switches modes. A family adds what is abstract."""

    def __init__(self, spec: DetectorSpec, module: nn.Module, strides: Sequence[int], device: torch.device) -> None:
        """`strides`: of the neck's levels, large maps first."""
        self.spec = spec
        self.module = module.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._strides = list(strides)
        self._file: tuple[str, str] | None = None

    def __repr__(self) -> str:
        """Return what a person asks first: architecture, image size, classes, device."""
        names = self.labels.names
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        return (
            f"<{type(self).__name__} {self.spec.architecture}, {self.spec.image_size} px, "
            f"{len(names)} classes ({shown}), {self.device}>"
        )

    @abstractmethod
    def forward(self, images: Tensor) -> Outputs:
        """See `Detector.forward`."""

    @abstractmethod
    def detection_loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Detector.detection_loss`. Raises TypeError for another family's outputs."""

    @abstractmethod
    def section_of(self, name: str) -> str:
        """See `Detector.section_of`."""

    @abstractmethod
    def class_branches(self) -> Mapping[str, nn.Conv2d]:
        """The last convolution of each class branch by the name of the module: one row for each class."""

    @abstractmethod
    def untrained(self, spec: DetectorSpec) -> Self:
        """A detector of this family on the same device; the bias of each class row is at the prior."""

    @property
    def labels(self) -> LabelSpace:
        """Return the label space of the head."""
        return self.spec.labels

    @property
    def device(self) -> torch.device:
        """Return the device that holds the weights."""
        device: torch.device = next(self.module.parameters()).device
        return device

    def anchors_for(self, size: int) -> tuple[Tensor, Tensor]:
        """Anchors and strides as in `Outputs`, for images of `size` pixels."""
        points, strides = grid(size, self._strides)
        return torch.from_numpy(points).to(self.device), torch.from_numpy(strides).to(self.device)

    def weights(self) -> WeightMap:
        """See `Detector.weights`."""
        state = self.module.state_dict()
        return WeightMap({name: value.detach().cpu().contiguous().numpy().copy() for name, value in state.items()})

    @property
    def digest(self) -> str:
        """See `Detector.digest`."""
        digest = self.weights().digest(self.spec.to_metadata())
        return self._file[1] if self._file is not None and self._file[0] == digest else digest

    def loaded_from(self, path: Path) -> None:
        """See `Detector.loaded_from`."""
        self._file = self.weights().digest(self.spec.to_metadata()), digest_of_file(path).digest

    def save(self, path: Path | str) -> str:
        """See `Detector.save`."""
        return self.weights().save(Path(path), self.spec.to_metadata())

    def load_weights(self, weights: WeightMap) -> None:
        """See `Detector.load_weights`."""
        self.weights().check_same_schema(weights)
        weights.check_finite()
        self.module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})

    def class_rows(self) -> Mapping[str, int]:
        """See `Detector.class_rows`."""
        return {f"{name}.{kind}": 0 for name in self.class_branches() for kind in ("weight", "bias")}

    def expand_classes(self, labels: LabelSpace) -> Self:
        """See `Detector.expand_classes`. Raises InvalidInput when `labels` does not extend this one's.

        A new row starts as the mean of the old ones, which between them tell objects from background, with its bias at
        the prior. It follows from the old weights alone, so a site and the cloud that grow the same tutor get the same
        rows.
        """
        if not labels.extends(self.labels):
            raise InvalidInput(
                f"label space {', '.join(labels.names)} does not extend {', '.join(self.labels.names)}: "
                "ids must keep their meaning, append new names at the end"
            )
        wider = self.untrained(self.spec.model_copy(update={"labels": labels}))
        rows = self.class_rows()
        shared = {name: value for name, value in self.module.state_dict().items() if name not in rows}
        wider.module.load_state_dict(shared, strict=False)
        branches = wider.class_branches()
        with torch.no_grad():
            for name, before in self.class_branches().items():
                after = branches[name]
                assert before.bias is not None and after.bias is not None
                after.weight.copy_(before.weight.mean(0, keepdim=True).expand_as(after.weight))
                after.weight[: before.out_channels] = before.weight
                after.bias[: before.out_channels] = before.bias
        return wider

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        """Boxes in each image, best first; images may have different sizes. Leaves every layer in its mode."""
        found: list[Detections] = []
        size = self.spec.image_size
        points, strides = grid(size, self._strides)
        with _evaluating(self.module), torch.inference_mode():
            for start in range(0, len(images), PREDICT_BATCH):
                batch, frames = prepare(images[start : start + PREDICT_BATCH], size)
                outputs = self.forward(torch.from_numpy(batch).to(self.device))
                logits = outputs.class_logits.float().cpu().numpy(), outputs.box_logits.float().cpu().numpy()
                found += decode(*logits, points, strides, frames, confidence)
        return found


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside. A training that is looked at half-way holds some layers still, and goes on doing so."""
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        yield
    finally:
        for layer in training:
            layer.training = True


def class_branch(old: nn.Conv2d, classes: int, image_size: int, stride: float) -> nn.Conv2d:
    """What stands in for `old`, with `classes` rows and biases at the prior for images of that size."""
    new = nn.Conv2d(old.in_channels, classes, 1).to(old.weight.device)
    assert new.bias is not None
    nn.init.constant_(new.bias, class_prior(classes, image_size, stride))
    return new


def class_prior(classes: int, image_size: int, stride: float) -> float:
    """Log of the chance that an anchor shows a given class: some 5 objects on a picture, spread over all anchors."""
    return math.log(min(5 / max(classes, 1) / (image_size / stride) ** 2, HIGHEST_PRIOR))


def replace_batch_norms(module: nn.Module) -> None:
    """Puts a group norm in the place, and under the name, of every batch norm of an untrained network.

    It measures each image by itself: no running statistics, so none in a gap, and none that a site's pictures move.
    """
    for name, norm in list(module.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            parent, _, last = name.rpartition(".")
            group_norm = nn.GroupNorm(groups_of(norm.num_features), norm.num_features, norm.eps)
            setattr(module.get_submodule(parent), last, group_norm)


def groups_of(channels: int) -> int:
    """32 groups, fewer where one would have less than 4 channels or `channels` cannot be shared out."""
    groups = math.gcd(channels, MOST_GROUPS)
    while groups > 1 and channels // groups < LEAST_CHANNELS:
        groups //= 2
    return groups
