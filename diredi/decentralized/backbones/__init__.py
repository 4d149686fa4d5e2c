"""Backbones: torch modules that turn images into features.

To add a backbone, subclass `Backbone` in a file beside this one and add a line to BACKBONES. Peers with different
backbones can learn from each other, because they exchange the predictions of their heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from diredi.decentralized.backbones.base import Backbone, Shape
from diredi.decentralized.backbones.resnet18 import ResNet18
from diredi.decentralized.backbones.small import Cnn, Mlp

BACKBONES: Final[dict[str, Callable[[Shape], Backbone]]] = {"mlp": Mlp, "cnn": Cnn, "resnet18": ResNet18}

__all__ = ["BACKBONES", "Backbone", "Shape"]
