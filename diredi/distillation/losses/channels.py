"""Feature distillation: channel-wise (CWD).

Shu, Liu, Gao, Yan, Shen: "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, arXiv 2011.13256.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diredi.distillation.losses.base import FeatureLoss, Lesson

TEMPERATURE = 1.0
GAIN = 5.0
"""Both as in the authors' configurations for detectors."""


class ChannelWise(FeatureLoss):
    """Where each channel looks: its map as a distribution over all places, the student's against the teacher's.

    Equations 3 and 4: T^2 / channels times the sum over channels of the Kullback-Leibler divergence. Strong places of a
    channel, where objects are, count most; how strong the channel is as a whole does not count.
    """

    def forward(self, lesson: Lesson) -> Tensor:
        return GAIN * torch.stack([_divergence(mine, theirs) for mine, theirs in self.maps(lesson)]).sum()


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    mine, theirs = ((features.flatten(2) / TEMPERATURE).log_softmax(-1) for features in (student, teacher))
    divergence = F.kl_div(mine, theirs, reduction="none", log_target=True).sum(-1)
    return TEMPERATURE**2 * divergence.mean()
