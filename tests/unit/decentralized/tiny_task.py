"""Images of 4 x 4 pixels in three classes, and networks that learn them in a moment."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from diredi.data.classification.base import ClassificationSet, LabelledImages


def tiny_set(train: int = 240, test: int = 90) -> ClassificationSet:
    """A class is a pattern under a lot of noise."""
    rng = np.random.default_rng([7])
    patterns = rng.integers(60, 196, (3, 1, 4, 4))

    def drawn(count: int) -> LabelledImages:
        labels = np.arange(count) % 3
        noisy = patterns[labels] + rng.normal(0, 50, (count, 1, 4, 4))
        return LabelledImages(noisy.clip(0, 255).astype(np.uint8), labels.astype(np.int64))

    return ClassificationSet("tiny", ("a", "b", "c"), drawn(train), drawn(test))


def unlike_shards(clients: int = 6, train: int = 240) -> list[np.ndarray]:
    """Of different sizes, each with more of one class than of the others."""
    by_class = np.argsort(np.arange(train) % 3, kind="stable")
    cuts = np.cumsum(np.arange(1, clients + 1)) * train // (clients * (clients + 1) // 2)
    return [np.sort(part) for part in np.split(by_class, cuts[:-1])]


class Network(nn.Module):
    """uint8 images in, logits out."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images.float() / 127.5 - 1)
        return logits


def dense(*between: nn.Module) -> Network:
    torch.manual_seed(0)
    return Network(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), *between, nn.Linear(12, 3))


def convolutional() -> Network:
    torch.manual_seed(0)
    return Network(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
