"""The base class of backbones."""

from __future__ import annotations

from torch import nn

Shape = tuple[int, int, int]
"""Shape of an image: channels, height, width."""


class Backbone(nn.Module):
    """A module that maps images, fp32 [n, channels, height, width] from -1 to 1, to features, fp32 [n, features]."""

    features: int
    """Number of features."""
