"""Response distillation by any measure of how unlike two probability vectors are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from diredi.distillation.dissimilarity import MEASURES
from diredi.distillation.losses.response import ScoreLoss

SLOWNESS: Final[dict[str, float]] = {"ce": 1, "kl": 1, "td": 2, "js": 4, "sed": 4, "msed": 4}
"""How many times smaller than Kullback-Leibler's each gradient is near equality: made up for, so that a weight of 1
means as much with one measure as with another."""


class Dissimilarity(ScoreLoss):
    """One measure between the two detectors' scores, less what it is where they agree.

    A detector scores each class by itself, so each score s is a vector of two outcomes, (s, 1 - s). Both logits are
    divided by the temperature first, and the loss is multiplied by its square (Hinton, Vinyals, Dean: "Distilling the
    Knowledge in a Neural Network", 2015), so that the pace does not change with it.
    """

    def __init__(self, measure: str, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__(student_channels, teacher_channels)
        self.measure, self.gain = MEASURES[measure], SLOWNESS[measure]

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """See `ScoreLoss.divergence`."""
        p, q = _outcomes(student / temperature), _outcomes(teacher / temperature)
        return self.gain * temperature**2 * (self.measure(p, q) - self.measure(q, q))


def _outcomes(logits: Tensor) -> Tensor:
    return torch.stack([logits.sigmoid(), (-logits).sigmoid()], -1)
