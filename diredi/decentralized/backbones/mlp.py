"""Two dense layers, for digits and for simulations of a thousand clients on one machine."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from diredi.decentralized.backbones.base import Backbone, Shape


class Mlp(Backbone):
    """Two dense layers with ReLU."""

    features = 64

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(prod(shape), 64), nn.ReLU(), nn.Linear(64, self.features), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features, fp32 [n, features]."""
        features: Tensor = self.layers(images)
        return features
