"""Small networks: for digits, for a thousand clients on one machine, for grids of hundreds of trainings on a CPU."""

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


class Cnn(Backbone):
    """Two convolutions with batch norm, each followed by 2x2 pooling, and a dense layer."""

    features = 64

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        channels, height, width = shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), self.features), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features, fp32 [n, features]."""
        features: Tensor = self.layers(images)
        return features
