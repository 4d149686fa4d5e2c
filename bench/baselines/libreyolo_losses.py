"""LibreYOLO's own distillation losses, as losses of `diredi.distillation`: rivals in `bench/kd.py`.

LibreYOLO distils by features of the neck alone, through 1x1 convolutions where channels differ, beside the student's
detection loss. Each loss is multiplied here by the weight that LibreYOLO's `Distiller` gives it where nobody says
otherwise, so that a weight of 1 in a recipe is what its user gets: 2e-5 for MGD, which is the weight of the paper's sum
of squares on what in LibreYOLO is their mean, and so next to nothing; `libreyolo_mgd_1` is the same loss at weight 1.

MGD   Yang et al., "Masked Generative Distillation", ECCV 2022: the teacher's map is made from the student's, of which
      65 % of the cells are hidden. Draws from torch's random state.
CWD   Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, temperature 1.
feat  The mean of squares (Romero et al., "FitNets", ICLR 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor, nn

from diredi.distillation.losses import DistillationBatch, Loss, MakeLoss


class LibreYoloLoss(Loss):
    """One of LibreYOLO's losses on each level of the neck, summed."""

    def __init__(
        self, name: str, weight: float, student_channels: Sequence[int], teacher_channels: Sequence[int]
    ) -> None:
        super().__init__(student_channels, teacher_channels)
        from libreyolo.distillation.losses import DISTILL_LOSSES

        pairs = zip(student_channels, teacher_channels, strict=True)
        self.levels = nn.ModuleList(DISTILL_LOSSES[name](mine, theirs) for mine, theirs in pairs)
        self.weight = weight

    def forward(self, lesson: DistillationBatch) -> Tensor:
        maps = zip(self.levels, lesson.student.features, lesson.teacher.features, strict=True)
        return self.weight * torch.stack([level(mine.float(), theirs.float()) for level, mine, theirs in maps]).sum()


RIVAL_LOSSES: Final[dict[str, MakeLoss]] = (
    {
        "libreyolo_mgd": partial(LibreYoloLoss, "mgd", 2e-5),
        "libreyolo_mgd_1": partial(LibreYoloLoss, "mgd", 1.0),
        "libreyolo_cwd": partial(LibreYoloLoss, "cwd", 1.0),
        "libreyolo_features": partial(LibreYoloLoss, "feat_mse", 1.0),
    }
    if find_spec("libreyolo") is not None
    else {}
)
"""By the name that a recipe gives them once they are in `LOSSES`; none where LibreYOLO is not installed."""
