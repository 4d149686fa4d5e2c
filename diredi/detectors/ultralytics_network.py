"""Ultralytics networks by name, with a head whose shapes follow from the architecture and the label space alone.

Ultralytics widens the class branch of a head with the number of classes (`max(channels, min(classes, 100))`), so that a
network grown from 6 to 7 classes would have other shapes than one that was built for 7. Here that width is part of the
architecture: the rule for COCO's 80 classes for n, s, m, l, x, so that official checkpoints fit; no wider than
the features for the widths below n; or what the name says ("yolo11n-h64").
"""

from __future__ import annotations

import math
import os
import re
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, TypeAlias

from torch import Tensor, nn

from diredi.detectors.network import BATCH_NORM_MOMENTUM, class_branch, replace_batch_norms
from diredi.errors import InvalidInput
from diredi.seeding import seeded

# Read once, when Ultralytics is imported: nothing is installed behind the user's back.
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")

from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss

FAMILIES = ("yolo11", "yolo26", "yolov8")
ARCHITECTURE = re.compile(
    rf"(?P<family>{'|'.join(FAMILIES)})"
    r"(?:(?P<letter>[nsmlx])|-w(?P<width>0\.\d{1,4})(?:-d(?P<depth>[01]\.\d{1,4}))?)"
    r"(?:-h(?P<head>\d{1,3}))?(?:-(?P<activation>relu6?|leakyrelu0\.\d{1,4}|hardswish))?(?P<norm>-gn)?"
)
KNOWN_ACTIVATIONS = "ReLU, ReLU6, LeakyReLU or Hardswish"
_ACTIVATIONS = {"relu": "ReLU()", "relu6": "ReLU6()", "hardswish": "Hardswish()"}
_LEAKY = "leakyrelu"
COCO_CLASSES = 80
Criterion: TypeAlias = E2ELoss | v8DetectionLoss
_GAINS = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=1)
_OWN_SCALE = "d"  # key under which a width below n is added to the YAML; a letter that Ultralytics does not use


@dataclass(frozen=True)
class Architecture:
    """A parsed name. `scale` is (depth, width, most channels), None for one of Ultralytics' own letters."""

    family: str
    letter: str
    scale: tuple[float, float, int] | None
    head: int | None
    activation: str
    """An expression that makes the activation, as in a YAML of Ultralytics; empty for SiLU."""
    group_norm: bool

    @classmethod
    def parse(cls, name: str) -> Architecture:
        """Raises InvalidInput that says which names there are."""
        match = ARCHITECTURE.fullmatch(name)
        if match is None:
            raise InvalidInput(
                f"architecture {name!r} is not known: use yolo11, yolo26 or yolov8 with n, s, m, l or x (yolo11n), "
                "or a width below n (yolo11-w0.125, yolo11-w0.125-d0.33), -relu, -relu6, -leakyrelu0.1 or -hardswish "
                "for that activation, and -gn for group norm (yolo11n-gn)"
            )
        head = int(match["head"]) if match["head"] else None
        if head is not None and not 1 <= head <= 100:
            raise InvalidInput(f"architecture {name!r}: the width of the head must be 1 to 100")
        rest = head, _activation(match["activation"] or ""), bool(match["norm"])
        if match["letter"]:
            return cls(match["family"], match["letter"], None, *rest)
        width = float(match["width"])
        if width < 0.03:
            raise InvalidInput(f"architecture {name!r}: width {width} leaves no channels, use 0.03 or more")
        depth = float(match["depth"] or (0.33 if match["family"] == "yolov8" else 0.50))
        return cls(match["family"], _OWN_SCALE, (depth, width, 1024), *rest)

    @property
    def head_classes(self) -> int:
        """The number of classes that makes Ultralytics build the class branch as wide as this architecture wants it."""
        if self.head is not None:
            return self.head
        return COCO_CLASSES if self.scale is None else 1


def _activation(name: str) -> str:
    if name.startswith(_LEAKY):
        return f"torch.nn.LeakyReLU({name.removeprefix(_LEAKY)})"
    return f"torch.nn.{_ACTIVATIONS[name]}" if name else ""


def activation_suffix(kind: str, slope: float | None = None) -> str | None:
    """Return the part of an architecture's name that says its activation; None for one that has no name here.

    Args:
        kind: Name of the activation's class in `torch.nn`.
        slope: Of a LeakyReLU.
    """
    if kind == "SiLU":
        return ""
    if kind == "LeakyReLU" and slope is not None:
        return f"-{_LEAKY}{slope:g}"
    return next((f"-{name}" for name, makes in _ACTIVATIONS.items() if makes == f"{kind}()"), None)


def build(name: str, classes: int, image_size: int, seed: int) -> DetectionModel:
    """An untrained network; equal arguments give equal weights. Raises InvalidInput for an unknown name."""
    architecture = Architecture.parse(name)
    recipe = _recipe(architecture)
    with seeded(seed):
        network = DetectionModel(recipe, ch=3, nc=architecture.head_classes, verbose=False)
        set_classes(network, classes, image_size)
    network.args = _GAINS
    if architecture.group_norm:
        replace_batch_norms(network)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = BATCH_NORM_MOMENTUM
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network


def alike(first_channels: int) -> list[str]:
    """Architectures with a letter whose first convolution has that many channels."""
    found = []
    for family in FAMILIES:
        scales = _recipe(Architecture.parse(f"{family}n"))["scales"]
        wanted = {letter: math.ceil(min(64, most) * width / 8) * 8 for letter, (_, width, most) in scales.items()}
        found += [family + letter for letter, channels in wanted.items() if channels == first_channels]
    return found


@cache
def _yaml(family: str) -> dict[str, Any]:
    """Ultralytics' description of a family; it looks for the file in many places each time."""
    content: dict[str, Any] = yaml_model_load(f"{family}n.yaml")
    return content


def _recipe(architecture: Architecture) -> dict[str, Any]:
    recipe = deepcopy(_yaml(architecture.family))
    if architecture.scale is not None:
        recipe["scales"] = {_OWN_SCALE: list(architecture.scale)}
    recipe["scale"] = architecture.letter
    if architecture.activation:
        recipe["activation"] = architecture.activation
    return recipe


def backbone_layers(network: DetectionModel) -> int:
    """How many of the network's layers are its backbone."""
    return len(network.yaml["backbone"])


def without_backbone(network: DetectionModel) -> DetectionModel:
    """The same network with nothing in the place of its backbone's layers, which so have no weights."""
    for index in range(backbone_layers(network)):
        network.model[index] = nn.Identity()
    return network


def run(network: DetectionModel, layers: range, x: Tensor, kept: list[Tensor | None]) -> Tensor:
    """Runs some layers in a row and returns the output of the last one.

    `x` is the output of the layer before the first, or the images. `kept` has those outputs of the layers before that a
    later one asks for, in the place of its number, and grows by those of these layers.
    """
    for index in layers:
        layer = network.model[index]
        if isinstance(layer.f, int):
            x = layer(x if layer.f == -1 else kept[layer.f])
        else:
            x = layer([x if j == -1 else kept[j] for j in layer.f])
        kept.append(x if layer.i in network.save else None)
    return x


def class_layers(network: DetectionModel) -> dict[str, nn.Conv2d]:
    """The last convolution of each class branch by the name of the module: one row for each class."""
    head, index = network.model[-1], len(network.model) - 1
    found: dict[str, nn.Conv2d] = {}
    for branch in ("cv3", "one2one_cv3"):
        for level, layers in enumerate(getattr(head, branch, None) or ()):
            found[f"model.{index}.{branch}.{level}.{len(layers) - 1}"] = layers[-1]
    return found


def set_classes(network: DetectionModel, classes: int, image_size: int) -> None:
    """Gives the head `classes` rows and forgets the old ones; biases start at the prior for images of that size."""
    head = network.model[-1]
    for name, old in class_layers(network).items():
        stride = float(head.stride[int(name.split(".")[3])])
        network.get_submodule(name.rpartition(".")[0])[-1] = class_branch(old, classes, image_size, stride)
    head.nc = classes
    head.no = classes + head.reg_max * 4
    network.yaml["nc"] = classes
    network.names = {i: str(i) for i in range(classes)}


def has_two_heads(network: DetectionModel) -> bool:
    """Whether there is a one-to-one head beside the one-to-many one."""
    return getattr(network.model[-1], "one2one_cv2", None) is not None


def criterion(network: DetectionModel) -> Criterion:
    """The family's own loss: task-aligned assignment, box and class terms; both heads of an end-to-end network."""
    return E2ELoss(network) if has_two_heads(network) else v8DetectionLoss(network)
