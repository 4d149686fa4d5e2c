"""Evaluation of detectors: average precision, precision, recall, F1 and forgetting."""

from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics, forgetting

__all__ = ["ClassMetrics", "DetectionMetrics", "forgetting"]
