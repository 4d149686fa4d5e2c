"""Distillation losses by name. A new loss is one file here and one line in LOSSES."""

from __future__ import annotations

from typing import Final

from diredi.distillation.losses.base import Lesson, Loss
from diredi.distillation.losses.fgd import FocalGlobal
from diredi.distillation.losses.response import BoxDistributions, ClassScores

LOSSES: Final[dict[str, type[Loss]]] = {
    "class_scores": ClassScores,
    "boxes": BoxDistributions,
    "fgd": FocalGlobal,
}

__all__ = ["LOSSES", "BoxDistributions", "ClassScores", "FocalGlobal", "Lesson", "Loss"]
