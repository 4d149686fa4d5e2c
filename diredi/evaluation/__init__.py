"""How good a detector is: average precision, precision, recall, F1 and forgetting."""

from diredi.evaluation.metrics import ClassFigures, Figures, forgetting

__all__ = ["ClassFigures", "Figures", "forgetting"]
