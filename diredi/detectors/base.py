"""`Detector`: the one interface that learning code sees. A family is one file beside this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The labels of a batch, n boxes on all of its images."""

    image_index: Tensor
    """int64 [n]: which image of the batch a box is on."""
    classes: Tensor
    """int64 [n]: ids of the detector's label space."""
    boxes: Tensor
    """float32 [n, 4]: centre-x, centre-y, width and height, 0 to 1 of the network's input."""
    labelled: Tensor | None = None
    """float32 [batch, classes]: 1 where the image's annotator knew the class; None: all of them."""

    @classmethod
    def none(cls, device: torch.device) -> Targets:
        """Return targets without any box.

        Args:
            device: Where the tensors are.
        """
        nobody = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(nobody, nobody, torch.zeros(0, 4, device=device))

    def to(self, device: torch.device) -> Targets:
        """Return the same targets on a device.

        Args:
            device: Where the tensors are to be.
        """
        labelled = None if self.labelled is None else self.labelled.to(device)
        return Targets(self.image_index.to(device), self.classes.to(device), self.boxes.to(device), labelled)


@dataclass(frozen=True)
class Outputs:
    """What a network says before any non-maximum suppression, which is what distillation losses compare.

    Logits are float32 whatever the arithmetic of the forward pass: a loss in half precision learns less.
    """

    class_logits: Tensor
    """float32 [batch, anchors, classes]; anchors over all levels."""
    box_logits: Tensor
    """float32 [batch, anchors, 4, bins]: distributions of the distances to the left, top, right and bottom side, in
    strides from the anchor; one bin where the family regresses the distances themselves."""
    anchors: Tensor
    """float32 [anchors, 2]: x and y in pixels of the input."""
    strides: Tensor
    """float32 [anchors]: pixels."""
    features: tuple[Tensor, ...]
    """The neck: a map [batch, channels, height, width] for each level, large maps first."""


@dataclass(frozen=True)
class Router:
    """Tells images of a branch's place from all others: a linear layer on what `Detector.scene` says of an image.

    Where its logit is high the branch is heard for the router's classes, where it is low whoever spoke for them before
    is (a gate of a mixture of experts; Jacobs et al., "Adaptive Mixtures of Local Experts", 1991, with one input).
    """

    classes: tuple[int, ...]
    """Ids, in rising order, of those classes of the branch for which it decides."""
    weight: Tensor
    """float32 [channels]."""
    bias: Tensor
    """float32 []."""


class Teacher(Protocol):
    """What a detector may learn from: another detector, several that answer as one, or something of your own."""

    @property
    def spec(self) -> DetectorSpec:
        """Architecture, image size and label space of the answers."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def forward(self, images: Tensor) -> Outputs:
        """See `Detector.forward`."""
        ...

    def weights(self) -> WeightMap:
        """Return all that its answers follow from."""
        ...


class Detector(Predictor, Protocol):
    """A model: a trainable detector with its specification. `create` makes one, `load` opens one.

    Its weights are raw fp32 training weights, never half precision, averaged or fused, so that differences of them mean
    something. Whatever takes a model leaves it as it was; `train` alone works in place.

    Example:
        >>> import diredi
        >>> model = diredi.create("yolo11-w0.125", 64, ["car", "person"], device="cpu")
        >>> model.spec.image_size, model.labels.names, model.digest[:7]
        (64, ('car', 'person'), 'sha256:')
    """

    spec: DetectorSpec
    """Architecture, image size and label space."""
    module: nn.Module
    """The network."""

    def forward(self, images: Tensor) -> Outputs:
        """Compute the raw outputs, in train and in eval mode.

        Args:
            images: float32 [batch, 3, size, size], RGB, 0 to 1, on the model's device.

        Returns:
            What losses compare; the boxes are yet to be decoded.
        """
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def detection_loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """Compute the family's own loss.

        Args:
            outputs: What `forward` gave.
            targets: The labels. A class that `targets.labelled` leaves out for an image is neither right nor wrong
                there.

        Returns:
            The mean over the batch, a scalar with gradients.
        """
        ...

    def weights(self) -> WeightMap:
        """Return a copy of the weights on the CPU: float32 parameters and buffers, int64 counters."""
        ...

    @property
    def digest(self) -> str:
        """Digest "sha256:..." by which gaps, manifests and the cloud's registry know this model.

        It is that of the file which the model was loaded from, as long as its weights are those of the file, else that
        of the file which `save` would write.
        """
        ...

    def loaded_from(self, path: Path) -> None:
        """Remember the file that holds these weights, which another version of DiReDi may have written.

        Args:
            path: The file.
        """
        ...

    def save(self, path: Path | str) -> str:
        """Write the raw fp32 weights as safetensors, whole or not at all; the file says what it is.

        Args:
            path: Where the file goes, best with the suffix ".safetensors".

        Returns:
            The digest "sha256:..." of the file. Equal models give equal files.
        """
        ...

    def load_weights(self, weights: WeightMap) -> None:
        """Replace the weights.

        Args:
            weights: Weights of the same names, types and shapes.

        Raises:
            InvalidInput: A name, a type or a shape differs, or a value is not finite.
        """
        ...

    def expand_classes(self, labels: LabelSpace) -> Detector:
        """Return a copy that has rows for the classes of a larger label space; old rows are bit for bit the same.

        Args:
            labels: A label space that extends the model's own.

        Raises:
            InvalidInput: `labels` gives an id another meaning.
        """
        ...

    def parts(self) -> Sequence[Detector]:
        """Return the main network, then each branch as a network of its own: copies without branches.

        All of them have the one backbone, and heads with rows for all classes, whoever speaks for these.
        """
        ...

    def with_branch(self, taught: Detector, classes: Sequence[int], router: Router | None = None) -> Detector:
        """Return a copy that has one more branch, which speaks for some classes; all others are found as before.

        Args:
            taught: A detector whose neck and head the branch gets. It has learned on this one's backbone, which was
                held still, and has this one's label space or one that extends it.
            classes: Ids in the label space of `taught`, which the copy gets.
            router: For which of them the branch speaks only in its own place, and how an image tells that. None: for
                all of them it speaks everywhere.

        Raises:
            InvalidInput: `taught` has another architecture or backbone, or an id is beyond its label space.
        """
        ...

    def routers(self) -> Sequence[Router | None]:
        """Return the router of each branch; None for a branch that speaks everywhere."""
        ...

    def scene(self, images: Tensor) -> Tensor:
        """Compute what a router reads: the mean of each channel of the backbone's last map.

        Args:
            images: As for `forward`.

        Returns:
            float32 [batch, channels].
        """
        ...

    def section_of(self, name: str) -> str:
        """Return which section a weight belongs to: "backbone", "neck" or "head"; of a branch, neck or head.

        Args:
            name: Name of the weight.
        """
        ...

    def class_rows(self) -> Mapping[str, int]:
        """Return the names of weights whose rows (axis 0) are classes, with the number of rows before class 0."""
        ...
