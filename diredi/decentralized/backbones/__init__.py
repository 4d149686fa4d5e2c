"""What turns images into features: any torch module that says how many features it gives.

A backbone is one file beside this one and one line in BACKBONES. Peers of different backbones learn from each other,
for what they exchange is what their heads say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from diredi.decentralized.backbones.base import Backbone, Shape
from diredi.decentralized.backbones.cnn import Cnn
from diredi.decentralized.backbones.mlp import Mlp
from diredi.decentralized.backbones.resnet18 import ResNet18

BACKBONES: Final[dict[str, Callable[[Shape], Backbone]]] = {"mlp": Mlp, "cnn": Cnn, "resnet18": ResNet18}

__all__ = ["BACKBONES", "Backbone", "Shape"]
