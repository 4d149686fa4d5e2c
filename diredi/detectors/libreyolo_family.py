"""The LibreYOLO family: YOLOv9 under the MIT licence behind the `Detector` seam.

LibreYOLO holds many networks under many licences. What is used here is its YOLOv9, a port of the authors' own MIT
release (not of their GPL one), and the loss of that: task-aligned assignment, CIoU, distribution focal loss. Strides,
anchors and the 16 bins of a box' sides are those of the Ultralytics family, so that each may teach the other.

    libreyolo9t, s, m, c     LibreYOLO's sizes, t the smallest
    libreyolo9-w0.125        a width below t, whose own is 0.25, with blocks that do not repeat
    ...-h64                  a class branch as wide as for 64 classes; else 80 (checkpoints of COCO), in own widths 1
    ...-gn                   group norm for batch norm
"""

from __future__ import annotations

import importlib
import pickle
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diredi.detectors.base import Outputs, Targets
from diredi.detectors.network import (
    BATCH_NORM_MOMENTUM,
    NetworkDetector,
    attach_branches,
    class_branch,
    copied,
    replace_batch_norms,
)
from diredi.detectors.spec import DEFAULT_IMAGE_SIZE, DetectorSpec, check_image_size
from diredi.errors import CorruptData, InvalidInput
from diredi.labels import LabelSpace
from diredi.seeding import seeded
from diredi.store.weights import WeightMap

ARCHITECTURE = re.compile(
    r"libreyolo9(?:(?P<letter>[tsmc])|-w(?P<width>0\.\d{1,4}))(?:-h(?P<head>\d{1,3}))?(?P<norm>-gn)?"
)
STRIDES, BINS, COCO_CLASSES = (8, 16, 32), 16, 80
WIDTH_OF_T = 0.25
_UNREADABLE = (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, ValueError)
_PACKAGES = ("models", "models.yolo9", "data", "training", "utils")


def _yolo9() -> tuple[ModuleType, ModuleType]:
    """LibreYOLO's YOLOv9 network and its loss, and nothing else of the package.

    `libreyolo.models` imports a hundred families and torchvision, whose operators do not load beside CPU torch. So
    empty packages stand in while the two files are read.
    """
    place = Path(str(importlib.import_module("libreyolo").__file__)).parent
    empty = {f"libreyolo.{name}": place.joinpath(*name.split(".")) for name in _PACKAGES}
    added = [name for name in empty if name not in sys.modules]
    for name in added:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(empty[name])]
    try:
        poses = importlib.import_module("libreyolo.data.pose_metadata")
        sys.modules["libreyolo.data"].__dict__.setdefault("default_oks_sigmas", poses.default_oks_sigmas)
        network, loss = (importlib.import_module(f"libreyolo.models.yolo9.{part}") for part in ("nn", "loss"))
        return network, loss
    finally:
        for name in added:
            del sys.modules[name]


_network, _loss = _yolo9()


@dataclass(frozen=True)
class _RawOutputs(Outputs):
    """Outputs with what LibreYOLO's loss reads: bins and classes of each level, as the head's maps."""

    raw: tuple[tuple[Tensor, Tensor], ...]


class LibreYoloDetector(NetworkDetector):
    """A detector of LibreYOLO's YOLOv9 family (MIT licence)."""

    @cached_property
    def _criterion(self) -> Any:  # noqa: ANN401 - LibreYOLO is not typed
        strides, device = list(STRIDES), self.device
        return _loss.YOLO9Loss(len(self.labels), BINS, strides, None, device, distributed_normalize=False)

    def look(self, images: Tensor) -> Sequence[Tensor]:
        """See `NetworkDetector.look`."""
        network: Any = self.module
        maps: Sequence[Tensor] = network.backbone(images)
        return maps

    def say(self, part: Any, maps: Sequence[Tensor | None]) -> Outputs:  # noqa: ANN401 - LibreYOLO is not typed
        """See `NetworkDetector.say`."""
        features = part.neck(*maps)
        boxes = [tower(feature).float() for tower, feature in zip(part.head.cv2, features, strict=True)]
        scores = [tower(feature).float() for tower, feature in zip(part.head.cv3, features, strict=True)]
        batch, classes = features[0].shape[0], len(self.labels)
        height, width = (int(side) * STRIDES[0] for side in features[0].shape[-2:])
        points, strides = self.anchors_for((height, width))
        return _RawOutputs(
            class_logits=torch.cat([level.view(batch, classes, -1) for level in scores], 2).transpose(1, 2),
            box_logits=torch.cat([level.view(batch, 4, BINS, -1) for level in boxes], 3).permute(0, 3, 1, 2),
            anchors=points,
            strides=strides,
            features=tuple(features),
            raw=tuple(zip(boxes, scores, strict=True)),
        )

    def loss_of(self, outputs: Outputs, targets: Targets) -> Tensor:
        """See `NetworkDetector.loss_of`."""
        if not isinstance(outputs, _RawOutputs):
            raise TypeError("these outputs come from another detector family")
        height, width = (side * STRIDES[0] for side in outputs.features[0].shape[2:])
        self._criterion.update_anchors([width, height])
        self._criterion.cls_loss = _class_loss(targets.labelled)
        wanted = _padded(targets, len(outputs.class_logits))
        loss: Tensor = self._criterion([torch.cat(level, 1) for level in outputs.raw], wanted)["total_loss"]
        return loss

    def class_layers(self, part: Any) -> Mapping[str, nn.Conv2d]:  # noqa: ANN401 - LibreYOLO is not typed
        """See `NetworkDetector.class_layers`."""
        towers = part.head.cv3
        return {f"head.cv3.{level}.{len(tower) - 1}": tower[-1] for level, tower in enumerate(towers)}

    def reshaped(self, spec: DetectorSpec) -> LibreYoloDetector:
        """See `NetworkDetector.reshaped`."""
        network = copied(self.module)
        with seeded(0):
            _set_classes(network, spec)
        attach_branches(network, spec, _without_backbone)
        return LibreYoloDetector(spec, network, STRIDES, self.device)


def create(spec: DetectorSpec, seed: int, device: torch.device) -> LibreYoloDetector:
    """Make a detector with the first weights of a seed."""
    network = _built(spec, seed)
    attach_branches(network, spec, _without_backbone)
    return LibreYoloDetector(spec, network, STRIDES, device)


def _without_backbone(network: nn.Module) -> nn.Module:
    del network.backbone
    return network


def from_checkpoint(path: Path, image_size: int | None, device: torch.device) -> LibreYoloDetector:
    """The raw weights of a checkpoint that LibreYOLO has written, without the branch that only its training uses.

    Without a size, at the one that it was trained at.

    Raises CorruptData when `path` cannot be read without running what it says, InvalidInput for another network.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: value for name, value in content["model"].items() if not name.startswith(("aux.", "aux_head."))}
        arrays = {n: (v.float() if v.is_floating_point() else v).numpy().copy() for n, v in state.items()}
        names = LabelSpace(names=tuple(content["names"][i] for i in range(content["nc"])))
        network, size = content["model_family"], content["size"]
        pixels = image_size or int(content.get("imgsz") or DEFAULT_IMAGE_SIZE)
    except _UNREADABLE as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptData(f"{path} cannot be read as a LibreYOLO checkpoint ({said}): download it again") from None
    check_image_size(pixels, f"{path} was trained at a size that cannot be used: image size")
    weights = WeightMap(arrays)
    head = arrays.get("head.cv3.0.0.conv.weight", np.zeros(0))
    for suffix in ("", f"-h{head.shape[0] if head.ndim else 0}"):
        name = f"libreyolo9{size}{suffix}"
        if network == "yolo9" and ARCHITECTURE.fullmatch(name):
            detector = create(DetectorSpec(architecture=name, image_size=pixels, labels=names), 0, device)
            if detector.weights().schema() == weights.schema():
                detector.load_weights(weights)
                return detector
    raise InvalidInput(f"{path} is no plain detector of LibreYOLO's YOLOv9, or it is fused: name an unfused checkpoint")


def _built(spec: DetectorSpec, seed: int) -> nn.Module:
    """An untrained network; equal arguments give equal weights. Raises InvalidInput for an unknown name."""
    match = ARCHITECTURE.fullmatch(spec.architecture)
    if match is None:
        raise InvalidInput(
            f"architecture {spec.architecture!r} is not known: use libreyolo9 with t, s, m or c (libreyolo9t), or a "
            "width below t (libreyolo9-w0.125), and -gn for group norm (libreyolo9t-gn)"
        )
    head = int(match["head"] or (COCO_CLASSES if match["letter"] else 1))
    with seeded(seed):
        network: nn.Module = _network.LibreYOLO9Model(_config(match), BINS, head, spec.image_size)
        _set_classes(network, spec)
    if match["norm"]:
        replace_batch_norms(network)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = BATCH_NORM_MOMENTUM
    return network


def _set_classes(network: nn.Module, spec: DetectorSpec) -> None:
    """Gives the head a row for each class and forgets the old ones."""
    for tower, stride in zip(network.head.cv3, STRIDES, strict=True):  # type: ignore[arg-type,union-attr]
        tower[-1] = class_branch(tower[-1], len(spec.labels), spec.image_size, stride)


def _config(match: re.Match[str]) -> str:
    """The key of LibreYOLO's table of sizes; an own width is entered there first."""
    if match["letter"]:
        return match["letter"]
    width = float(match["width"])
    if not 0.03 <= width < WIDTH_OF_T:
        raise InvalidInput(
            f"architecture {match[0]!r}: width {width} is not between 0.03 and {WIDTH_OF_T}, which is libreyolo9t"
        )
    sizes: dict[str, dict[str, Any]] = _network.YOLO9_CONFIGS
    narrow = {name: _scaled(value, width / WIDTH_OF_T) for name, value in sizes["t"].items()}
    sizes[f"w{width}"] = {**narrow, "repeat_num": 1}
    return f"w{width}"


def _scaled(value: Any, by: float) -> Any:  # noqa: ANN401 - channels, or lists and tuples of them, or a word
    if isinstance(value, list | tuple):
        return type(value)(_scaled(one, by) for one in value)
    return max(8, round(value * by / 8) * 8) if isinstance(value, int) else value


def _class_loss(labelled: Tensor | None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """LibreYOLO's class term, silent about classes that an image was not labelled for (batch x classes)."""

    def loss(logits: Tensor, wanted: Tensor, norm: Tensor) -> Tensor:
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return (each if labelled is None else each * labelled[:, None, :]).sum() / norm

    return loss


def _padded(targets: Targets, images: int) -> Tensor:
    """Images x most boxes x 5: class (-1: no box), x1, y1, x2, y2 in 0..1."""
    order = targets.image_index.argsort(stable=True)
    index, low_side = targets.image_index[order], targets.boxes[:, 2:] / 2
    counts = index.bincount(minlength=images)
    table = torch.zeros(images, int(counts.max()), 5, device=index.device)
    table[..., 0] = -1
    place = torch.arange(len(index), device=index.device) - (counts.cumsum(0) - counts)[index]
    corners = torch.cat([targets.boxes[:, :2] - low_side, targets.boxes[:, :2] + low_side], 1)
    table[index, place] = torch.cat([targets.classes[:, None].float(), corners], 1)[order]
    return table
