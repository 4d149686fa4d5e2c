"""ResNet-18 (He et al., CVPR 2016) for small images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diredi.decentralized.backbones.base import Backbone, Shape


class ResNet18(Backbone):
    """ResNet-18 with the stem that is usual for CIFAR: one 3x3 convolution and no pooling."""

    features = 512

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(shape[0], 64, 3), nn.BatchNorm2d(64), nn.ReLU())
        widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        self.stages = nn.Sequential(
            *(nn.Sequential(_Block(before, after, stride), _Block(after, after, 1)) for before, after, stride in widths)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features, fp32 [n, features]."""
        # Channels last is a fifth faster on a CPU, and the preferred layout of GPUs in half precision.
        features: Tensor = self.stages(self.stem(images.contiguous(memory_format=torch.channels_last)))
        return features.mean((2, 3))


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            _convolution(before, after, 3, stride), nn.BatchNorm2d(after), nn.ReLU(),
            _convolution(after, after, 3), nn.BatchNorm2d(after),
        )  # fmt: skip
        alike = before == after and stride == 1
        self.shortcut: nn.Module = (
            nn.Identity() if alike else nn.Sequential(_convolution(before, after, 1, stride), nn.BatchNorm2d(after))
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.path(features) + self.shortcut(features))


def _convolution(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
