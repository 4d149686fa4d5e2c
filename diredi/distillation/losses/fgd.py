"""Feature distillation: focal and global (FGD).

Yang, Li, Jiang, Gong, Yuan, Zhao, Yuan: "Focal and Global Knowledge Distillation for Detectors", CVPR 2022,
arXiv 2111.11837. Section 3.1 is the focal part, section 3.2 the global one; the names below are the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diredi.detectors.base import Targets
from diredi.distillation.losses.base import DistillationBatch, FeatureLoss
from diredi.distillation.losses.boxes import cells

TEMPERATURE = 0.5  # T of the attention masks
ALPHA, BETA, GAMMA, LAMBDA = 1e-3, 5e-4, 1e-3, 5e-6
"""Weights of foreground, background, attention and relation: the defaults of the authors' code."""


class FocalGlobal(FeatureLoss):
    """The sum over the neck's levels of focal and global distillation.

    Boxes, the labels' or the teacher's, split each map in foreground and background. The context blocks live here,
    beside the detectors, as the projectors do.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__(student_channels, teacher_channels)
        self.levels = nn.ModuleList(_Level(channels) for channels in teacher_channels)

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        pairs = zip(self.levels, self.maps(lesson), strict=True)
        return torch.stack([level(mine, theirs, lesson.objects) for level, (mine, theirs) in pairs]).sum()


class _Level(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.student_context = _Context(channels)
        self.teacher_context = _Context(channels)

    def forward(self, student: Tensor, teacher: Tensor, targets: Targets) -> Tensor:
        images = len(student)
        spatial_t, channel_t = attention(teacher)
        spatial_s, channel_s = attention(student)
        foreground, background = masks(targets, images, student.shape[-2], student.shape[-1])
        error = (channel_t * (student - teacher).square()).sum(1, keepdim=True) * spatial_t
        features = ALPHA * (foreground * error).sum() + BETA * (background * error).sum()
        attentions = GAMMA * ((spatial_s - spatial_t).abs().sum() + (channel_s - channel_t).abs().sum())
        relation = LAMBDA * (self.student_context(student) - self.teacher_context(teacher)).square().sum()
        total: Tensor = features + attentions + relation
        return total / images


def attention(features: Tensor) -> tuple[Tensor, Tensor]:
    """Where and in which channels a map is strong: n x 1 x h x w and n x c x 1 x 1, each of mean 1."""
    n, c, h, w = features.shape
    strength = features.abs()
    spatial = h * w * (strength.mean(1).view(n, -1) / TEMPERATURE).softmax(-1).view(n, 1, h, w)
    channel = c * (strength.mean((2, 3)) / TEMPERATURE).softmax(-1).view(n, c, 1, 1)
    return spatial, channel


def masks(targets: Targets, images: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Foreground and background of each image, n x 1 x h x w, scaled so that small boxes count as much as large ones.

    A foreground cell weighs 1 / area of the smallest box over it, a background cell 1 / number of background cells.
    """
    device = targets.boxes.device
    low, high = cells(targets.boxes, width, height)
    x, y = torch.arange(width, device=device), torch.arange(height, device=device)
    across = (x >= low[:, 0:1]) & (x < high[:, 0:1])
    down = (y >= low[:, 1:2]) & (y < high[:, 1:2])
    inside = (down[:, :, None] & across[:, None, :]) / (high - low).prod(1)[:, None, None]
    index = targets.image_index.view(-1, 1, 1).expand_as(inside)
    foreground = torch.zeros(images, height, width, device=device).scatter_reduce(0, index, inside, "amax")
    background = (foreground == 0).float()
    background = background / background.sum((1, 2), keepdim=True).clamp(min=1)
    return foreground.unsqueeze(1), background.unsqueeze(1)


class _Context(nn.Module):
    """The context block of GCNet: one pooled summary of the whole map, added to each of its cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.where = nn.Conv2d(channels, 1, 1)
        self.change = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )
        nn.init.kaiming_normal_(self.where.weight, mode="fan_in")
        nn.init.zeros_(self.change[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.change[-1].bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        weights = self.where(features).flatten(2).softmax(-1)
        summary = (features.flatten(2) * weights).sum(-1)[:, :, None, None]
        changed: Tensor = features + self.change(summary)
        return changed
