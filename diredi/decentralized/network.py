"""A network with several heads: the main one for a peer's own labels, auxiliary ones for what its neighbours say."""

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
    embedding: Tensor
    """fp32 [n, features]."""
    logits: tuple[Tensor, ...]
    """Of each head, the main one first: fp32 [n, classes]."""


class MultiHeadNetwork(nn.Module):
    """Images uint8 [n, channels, height, width], on the network's device, in; what every head says out."""

    def __init__(self, backbone: Backbone, classes: int, recipe: NetworkRecipe) -> None:
        super().__init__()
        self.backbone, self.classes = backbone, classes
        self._bf16 = recipe.precision == "bf16"
        features = backbone.features
        auxiliary = [_head(recipe.head, features, classes) for _ in range(recipe.auxiliary)]
        heads = [nn.Linear(features, classes), *auxiliary]
        self.heads = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> NetworkOutputs:
        embedding = self.embedding(images)
        return NetworkOutputs(embedding, tuple(head(embedding) for head in self.heads))

    def logits(self, images: Tensor, head: int) -> Tensor:
        """Logits of one head, fp32 [n, classes]."""
        logits: Tensor = self.heads[head](self.embedding(images))
        return logits

    def embedding(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bf16):
            features: Tensor = self.backbone(images.float() / 127.5 - 1)
        return features.float()


def create_network(recipe: NetworkRecipe, shape: Shape, classes: int, seed: int) -> MultiHeadNetwork:
    """A fresh network: equal arguments give equal weights. Raises InvalidInput for an unknown backbone."""
    if recipe.backbone not in BACKBONES:
        raise InvalidInput(f"there is no backbone {recipe.backbone!r}: use {', '.join(sorted(BACKBONES))}")
    with seeded(seed):
        return MultiHeadNetwork(BACKBONES[recipe.backbone](shape), classes, recipe)


def _head(kind: str, features: int, classes: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(features, classes)
    return nn.Sequential(
        nn.Linear(features, features), nn.ReLU(),
        nn.Linear(features, features // 2), nn.ReLU(),
        nn.Linear(features // 2, classes),
    )  # fmt: skip
