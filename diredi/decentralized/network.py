"""A network with several heads: a main head for a peer's own labels, auxiliary heads for its neighbours' outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diredi.decentralized.backbones import BACKBONES, Backbone, Shape
from diredi.decentralized.recipe import NetworkRecipe
from diredi.errors import InvalidInput
from diredi.seeding import seeded

MAIN = 0
"""Index of the main head; auxiliary heads follow."""


@dataclass(frozen=True)
class NetworkOutputs:
    """The outputs of a network with several heads for a batch."""

    embedding: Tensor
    """fp32 [n, features]."""
    logits: tuple[Tensor, ...]
    """Logits of each head, the main head first, each fp32 [n, classes]."""


class MultiHeadNetwork(nn.Module):
    """A backbone with a main head and auxiliary heads.

    Args:
        backbone: Turns images into features.
        classes: Number of classes.
        recipe: Number and kind of auxiliary heads, and the precision of the backbone.
    """

    def __init__(self, backbone: Backbone, classes: int, recipe: NetworkRecipe) -> None:
        super().__init__()
        self.backbone, self.classes = backbone, classes
        self._bf16 = recipe.precision == "bf16"
        features = backbone.features
        auxiliary = [_create_head(recipe.head, features, classes) for _ in range(recipe.auxiliary)]
        heads = [nn.Linear(features, classes), *auxiliary]
        self.heads = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> NetworkOutputs:
        """Compute the embedding and the logits of all heads.

        Args:
            images: uint8 [n, channels, height, width], on the network's device.
        """
        embedding = self.embedding(images)
        return NetworkOutputs(embedding, tuple(head(embedding) for head in self.heads))

    def logits(self, images: Tensor, head: int) -> Tensor:
        """Compute the logits of one head, fp32 [n, classes].

        Args:
            images: uint8 [n, channels, height, width], on the network's device.
            head: Index of the head; MAIN is the main head.
        """
        logits: Tensor = self.heads[head](self.embedding(images))
        return logits

    def embedding(self, images: Tensor) -> Tensor:
        """Compute the features, fp32 [n, features], of uint8 images [n, channels, height, width]."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bf16):
            features: Tensor = self.backbone(images.float() / 127.5 - 1)
        return features.float()


def create_network(recipe: NetworkRecipe, shape: Shape, classes: int, seed: int) -> MultiHeadNetwork:
    """Create a network with random weights.

    Args:
        recipe: Backbone and heads.
        shape: Channels, height and width of the images.
        classes: Number of classes.
        seed: Equal arguments give equal weights.

    Returns:
        The network, on the CPU.

    Raises:
        InvalidInput: The backbone is unknown; the message lists those that exist.
    """
    if recipe.backbone not in BACKBONES:
        raise InvalidInput(f"there is no backbone {recipe.backbone!r}: use {', '.join(sorted(BACKBONES))}")
    with seeded(seed):
        return MultiHeadNetwork(BACKBONES[recipe.backbone](shape), classes, recipe)


def _create_head(kind: str, features: int, classes: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(features, classes)
    return nn.Sequential(
        nn.Linear(features, features), nn.ReLU(),
        nn.Linear(features, features // 2), nn.ReLU(),
        nn.Linear(features // 2, classes),
    )  # fmt: skip
