"""Feature distillation: channel-wise (CWD).

Shu, Liu, Gao, Yan, Shen: "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, arXiv 2011.13256.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diredi.distillation.dissimilarity import kl_of_logits
from diredi.distillation.losses.base import DistillationBatch, FeatureLoss

GAIN = 5.0
"""As in the authors' configurations for detectors, whose temperature is 1."""


class ChannelWise(FeatureLoss):
    """Where each channel looks: its map as a distribution over all places, the student's against the teacher's.

    Equations 3 and 4 at temperature 1: the mean over channels of the Kullback-Leibler divergence. A channel's strong
    places, where objects are, count most; what it adds to all places alike does not count.
    """

    def forward(self, lesson: DistillationBatch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        levels = [kl_of_logits(mine.flatten(2), theirs.flatten(2)).mean() for mine, theirs in self.maps(lesson)]
        return GAIN * torch.stack(levels).sum()
