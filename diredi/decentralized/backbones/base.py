"""What every backbone promises."""

from __future__ import annotations

from torch import nn

Shape = tuple[int, int, int]
"""Of an image: channels, height, width."""


class Backbone(nn.Module):
    """Images, fp32 [n, channels, height, width] from -1 to 1, in; features, fp32 [n, features], out."""

    features: int
