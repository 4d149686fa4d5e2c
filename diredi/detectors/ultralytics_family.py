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

import numpy as np
import torch
from torch import Tensor, nn

from diredi.detectors import ultralytics_network as networks
from diredi.detectors.base import Outputs, Targets
from diredi.detectors.postprocess import decode, grid, prepare
from diredi.detectors.predictor import Detections, Image
from diredi.detectors.spec import DetectorSpec
from diredi.detectors.ultralytics_checkpoint import download, read_checkpoint
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

__all__ = ["UltralyticsDetector", "create", "download", "from_checkpoint"]

PREDICT_BATCH = 32


@dataclass(frozen=True)
class _RawOutputs(Outputs):
    """Outputs with what Ultralytics' loss reads: one dictionary a head."""

    raw: Mapping[str, Any]


class UltralyticsDetector:
    """One network with its spec. Starts in eval mode; the trainer switches modes."""

    def __init__(self, spec: DetectorSpec, module: nn.Module, device: torch.device) -> None:
        self.spec = spec
        self.module = module.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._head = self.module.model[-1]

    @property
    def labels(self) -> LabelSpace:
        return self.spec.labels

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.module.parameters()).device
        return device

    @cached_property
    def _strides(self) -> list[int]:
        return [int(stride) for stride in self._head.stride]

    @cached_property
    def _criterion(self) -> networks.Criterion:
        return networks.criterion(self.module)

    def forward(self, images: Tensor) -> Outputs:
        """See `Detector.forward`. The one-to-one head runs only where gradients are wanted."""
        features = self._features(images.contiguous(memory_format=torch.channels_last))
        raw = {"one2many": self._head.forward_head(features, **self._head.one2many)}
        if networks.has_two_heads(self.module) and torch.is_grad_enabled():
            detached = [feature.detach() for feature in features]
            raw["one2one"] = self._head.forward_head(detached, **self._head.one2one)
        return self._as_outputs(features, raw)

    def _features(self, x: Tensor) -> list[Tensor]:
        kept: list[Tensor | None] = []
        for layer in self.module.model[:-1]:
            if isinstance(layer.f, int):
                x = layer(x if layer.f == -1 else kept[layer.f])
            else:
                x = layer([x if j == -1 else kept[j] for j in layer.f])
            kept.append(x if layer.i in self.module.save else None)
        return [kept[j] for j in self._head.f]

    def _as_outputs(self, features: Sequence[Tensor], raw: Mapping[str, Any]) -> Outputs:
        boxes, scores = raw["one2many"]["boxes"], raw["one2many"]["scores"]
        batch, _, anchors = boxes.shape
        points, strides = self._grid(features[0].shape[-1] * self._strides[0], boxes.device)
        return _RawOutputs(
            class_logits=scores.transpose(1, 2),
            box_logits=boxes.view(batch, 4, -1, anchors).permute(0, 3, 1, 2),
            anchors=points,
            strides=strides,
            features=tuple(features),
            raw=raw,
        )

    def _grid(self, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        points, strides = grid(size, self._strides)
        return torch.from_numpy(points).to(device), torch.from_numpy(strides).to(device)

    def detection_loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `Detector.detection_loss`. Raises TypeError for another family's outputs."""
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

    def weights(self) -> WeightMap:
        state = self.module.state_dict()
        return WeightMap({name: value.detach().cpu().contiguous().numpy().copy() for name, value in state.items()})

    def load_weights(self, weights: WeightMap) -> None:
        self.weights().check_same_schema(weights)
        weights.check_finite()
        self.module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})

    def grown(self, labels: LabelSpace) -> UltralyticsDetector:
        """See `Detector.grown`. Raises InvalidInput when `labels` does not extend this one's."""
        if not labels.extends(self.labels):
            raise InvalidInput(
                f"label space {', '.join(labels.names)} does not extend {', '.join(self.labels.names)}: "
                "ids must keep their meaning, append new names at the end"
            )
        spec = self.spec.model_copy(update={"labels": labels})
        module = networks.build(spec.architecture, len(labels), spec.image_size, seed=0)
        networks.grow_classes(module, self.module, spec.image_size)
        return UltralyticsDetector(spec, module, self.device)

    def section_of(self, name: str) -> str:
        index = int(name.split(".")[1])
        if index == len(self.module.model) - 1:
            return "head"
        return "backbone" if index < len(self.module.yaml["backbone"]) else "neck"

    def class_rows(self) -> Mapping[str, int]:
        names = networks.class_branches(self.module)
        return {f"{name}.{kind}": 0 for name in names for kind in ("weight", "bias")}

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        """Boxes in each image, best first; images may have different sizes. Leaves the mode as it was."""
        training = self.module.training
        self.module.eval()
        found: list[Detections] = []
        size = self.spec.image_size
        points, strides = grid(size, self._strides)
        with torch.inference_mode():
            for start in range(0, len(images), PREDICT_BATCH):
                batch, frames = prepare(images[start : start + PREDICT_BATCH], size)
                outputs = self.forward(torch.from_numpy(batch).to(self.device))
                logits = outputs.class_logits.float().cpu().numpy(), outputs.box_logits.float().cpu().numpy()
                found += decode(*logits, points, strides, frames, confidence)
        self.module.train(training)
        return found


def create(spec: DetectorSpec, seed: int, device: torch.device) -> UltralyticsDetector:
    module = networks.build(spec.architecture, len(spec.labels), spec.image_size, seed)
    return UltralyticsDetector(spec, module, device)


def from_checkpoint(path: Path, image_size: int, device: torch.device) -> UltralyticsDetector:
    checkpoint = read_checkpoint(path)
    spec = DetectorSpec(architecture=checkpoint.architecture, image_size=image_size, labels=checkpoint.labels)
    detector = create(spec, seed=0, device=device)
    detector.load_weights(checkpoint.weights)
    return detector
