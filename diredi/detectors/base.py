"""`Detector`: the one interface that learning code sees. A family is one file beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from diredi.detectors.predictor import Detections, Image, Predictor
from diredi.detectors.spec import DetectorSpec
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

__all__ = ["Detections", "Detector", "Image", "Outputs", "Predictor", "Targets", "Teacher"]


@dataclass(frozen=True)
class Targets:
    """Labels of a batch. `boxes` are centre-x, centre-y, width, height in 0..1 of the network's input."""

    image_index: Tensor  # n, int64
    classes: Tensor  # n, int64
    boxes: Tensor  # n x 4, float32
    labelled: Tensor | None = None  # batch x classes, 1 where the image's annotator knew the class; None: all of them

    @classmethod
    def none(cls, device: torch.device) -> Targets:
        """No box on any image."""
        nobody = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(nobody, nobody, torch.zeros(0, 4, device=device))

    def to(self, device: torch.device) -> Targets:
        """Copy the targets to a device.

        Args:
            device: Where the copy goes.

        Returns:
            Equal targets on that device.
        """
        labelled = None if self.labelled is None else self.labelled.to(device)
        return Targets(self.image_index.to(device), self.classes.to(device), self.boxes.to(device), labelled)


@dataclass(frozen=True)
class Outputs:
    """What the network says before any non-maximum suppression; what distillation losses read.

    `a` anchors over all levels, `c` classes, `r` bins of the box distribution (1 where the family regresses distances
    directly). Distances are left, top, right, bottom from the anchor in strides. Logits are float32 whatever the
    arithmetic of the forward pass: a loss in half precision learns less.
    """

    class_logits: Tensor  # batch x a x c
    box_logits: Tensor  # batch x a x 4 x r
    anchors: Tensor  # a x 2, pixels of the input
    strides: Tensor  # a
    features: tuple[Tensor, ...]  # neck, one batch x channels x height x width a level, large maps first


class Teacher(Protocol):
    """What a detector may learn from: another detector, or several that answer as one."""

    @property
    def spec(self) -> DetectorSpec: ...

    @property
    def device(self) -> torch.device: ...

    def forward(self, images: Tensor) -> Outputs:
        """As `Detector.forward`."""
        ...

    def weights(self) -> WeightMap:
        """What its answers follow from."""
        ...


class Detector(Predictor, Protocol):
    """A trainable detector. Weights are raw fp32 training weights: never half precision, averaged or fused."""

    spec: DetectorSpec
    module: nn.Module

    def forward(self, images: Tensor) -> Outputs:
        """`images`: batch x 3 x size x size, float32, RGB, 0..1, on the module's device. In train and in eval mode."""
        ...

    @property
    def device(self) -> torch.device: ...

    def detection_loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The family's own loss, mean over the batch, a scalar with gradients.

        A class that `targets.labelled` leaves out for an image is neither right nor wrong there.
        """
        ...

    def weights(self) -> WeightMap:
        """A copy on the CPU: float32 parameters and buffers, int64 counters."""
        ...

    @property
    def digest(self) -> str:
        """Digest "sha256:..." by which gaps, manifests and the cloud's registry know this detector: that of the file
        which it was loaded from, as long as its weights are those of the file, else that of what `save` would write."""
        ...

    def loaded_from(self, path: Path) -> None:
        """Remember the file that holds these weights, which another version of DiReDi may have written."""
        ...

    def save(self, path: Path | str) -> str:
        """Write the raw fp32 weights as safetensors, whole or not at all; the file says what it is.

        Args:
            path: Where the file goes, best with the suffix ".safetensors".

        Returns:
            The digest "sha256:..." of the file. Equal detectors give equal files.
        """
        ...

    def load_weights(self, weights: WeightMap) -> None:
        """Raises InvalidInput when the schema differs or a value is not finite."""
        ...

    def expand_classes(self, labels: LabelSpace) -> Detector:
        """A copy whose head has rows for `labels`, which must extend its own; old rows are bit for bit the same."""
        ...

    def section_of(self, name: str) -> str:
        """Which part a weight belongs to: "backbone", "neck" or "head"."""
        ...

    def class_rows(self) -> Mapping[str, int]:
        """Name of each weight whose rows (axis 0) are classes, to the number of rows before class 0 (mostly 0)."""
        ...
