"""The Ultralytics family: YOLO11, YOLO26 and YOLOv8 behind the `Detector` seam.

Weights keep the names that Ultralytics gives them ("model.0.conv.weight"), so that a gap fits and other tools can read
them. Networks are never fused and never half precision.

YOLO26 has two heads. The one-to-many head is what this project predicts with, distils and exports: it is the more
accurate of the two and the suppression of doubles costs an edge node little. The one-to-one head is trained
along (Ultralytics' own loss, its weights of the first epoch, 0.8 and 0.2) so that the weights stay a whole YOLO26.
Its boxes are distances, not distributions, so `r` is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diredi.detectors import ultralytics_network as networks
from diredi.detectors.base import Outputs, Targets
from diredi.detectors.network import NetworkDetector, attach_branches, copied
from diredi.detectors.spec import DEFAULT_IMAGE_SIZE, DetectorSpec, check_image_size
from diredi.detectors.ultralytics_checkpoint import download, read_checkpoint
from diredi.seeding import seeded

__all__ = ["UltralyticsDetector", "create", "download", "from_checkpoint"]


@dataclass(frozen=True)
class _RawOutputs(Outputs):
    """Outputs with what Ultralytics' loss reads: one dictionary a head."""

    raw: Mapping[str, Any]


class UltralyticsDetector(NetworkDetector):
    """A detector of Ultralytics' YOLO families."""

    def __init__(self, spec: DetectorSpec, module: Any, device: torch.device) -> None:  # noqa: ANN401 - not typed
        super().__init__(spec, module, [int(stride) for stride in module.model[-1].stride], device)

    @cached_property
    def _criterion(self) -> networks.Criterion:
        return networks.criterion(self.module)

    def look(self, images: Tensor) -> list[Tensor | None]:
        """See `NetworkDetector.look`."""
        kept: list[Tensor | None] = []
        last = networks.run(self.module, range(networks.backbone_layers(self.module)), images, kept)
        return [*kept[:-1], last]

    def say(self, part: Any, maps: Sequence[Tensor | None]) -> Outputs:  # noqa: ANN401 - Ultralytics is not typed
        """See `NetworkDetector.say`. The one-to-one head runs only where gradients are wanted."""
        head = part.model[-1]
        kept, last = list(maps), maps[-1]
        assert last is not None
        networks.run(part, range(len(maps), len(part.model) - 1), last, kept)
        features = [kept[layer] for layer in head.f]
        raw = {"one2many": head.forward_head(features, **head.one2many)}
        if networks.has_two_heads(part) and torch.is_grad_enabled():
            detached = [feature.detach() for feature in features]
            raw["one2one"] = head.forward_head(detached, **head.one2one)
        return self._as_outputs(features, raw)

    def _as_outputs(self, features: Sequence[Tensor], raw: Mapping[str, Any]) -> Outputs:
        raw = {head: {**said, **{k: said[k].float() for k in ("boxes", "scores")}} for head, said in raw.items()}
        boxes, scores = raw["one2many"]["boxes"], raw["one2many"]["scores"]
        batch, _, anchors = boxes.shape
        height, width = (int(side) * self._strides[0] for side in features[0].shape[-2:])
        points, strides = self.anchors_for((height, width))
        return _RawOutputs(
            class_logits=scores.transpose(1, 2),
            box_logits=boxes.view(batch, 4, -1, anchors).permute(0, 3, 1, 2),
            anchors=points,
            strides=strides,
            features=tuple(features),
            raw=raw,
        )

    def loss_of(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `NetworkDetector.loss_of`."""
        if not isinstance(outputs, _RawOutputs):
            raise TypeError("these outputs come from another detector family")
        order = targets.image_index.argsort(stable=True)  # Ultralytics counts on it
        columns = targets.image_index, targets.classes, targets.boxes
        batch = dict(zip(("batch_idx", "cls", "bboxes"), (column[order].float() for column in columns), strict=True))
        images = outputs.class_logits.shape[0]
        parts = [self._criterion] if len(outputs.raw) == 1 else [self._criterion.one2many, self._criterion.one2one]
        weights = [1.0] if len(parts) == 1 else [self._criterion.o2m, self._criterion.o2o]
        losses = []
        for part, weight, raw in zip(parts, weights, outputs.raw.values(), strict=True):
            part.class_weights = None if targets.labelled is None else targets.labelled[:, None, :].float()
            losses.append(weight * part.loss(raw, batch)[0].sum() / images)
        return torch.stack(losses).sum()

    def class_layers(self, part: Any) -> Mapping[str, nn.Conv2d]:  # noqa: ANN401 - Ultralytics is not typed
        """See `NetworkDetector.class_layers`."""
        return networks.class_layers(part)

    def reshaped(self, spec: DetectorSpec) -> UltralyticsDetector:
        """See `NetworkDetector.reshaped`."""
        module: Any = copied(self.module)
        with seeded(0):
            networks.set_classes(module, len(spec.labels), spec.image_size)
        attach_branches(module, spec, networks.without_backbone)
        return UltralyticsDetector(spec, module, self.device)


def create(spec: DetectorSpec, seed: int, device: torch.device) -> UltralyticsDetector:
    """Make a detector with the first weights of a seed."""
    module = networks.build(spec.architecture, len(spec.labels), spec.image_size, seed)
    attach_branches(module, spec, networks.without_backbone)
    return UltralyticsDetector(spec, module, device)


def from_checkpoint(path: Path, image_size: int | None, device: torch.device) -> UltralyticsDetector:
    """Read a detector from a checkpoint of Ultralytics; without a size, at the one that it was trained at."""
    checkpoint = read_checkpoint(path)
    size = image_size or checkpoint.image_size or DEFAULT_IMAGE_SIZE
    check_image_size(size, f"{path} was trained at a size that cannot be used: image size")
    spec = DetectorSpec(architecture=checkpoint.architecture, image_size=size, labels=checkpoint.labels)
    detector = create(spec, seed=0, device=device)
    detector.load_weights(checkpoint.weights)
    return detector
