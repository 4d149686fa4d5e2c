"""Pure rules about detection health: whether a device detects as well with a release as it has to, and if not, why."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from cloud_server.entities import DetectionHealth
from cloud_server.rollout_rules import DetectionBounds

LEAST_FRAMES: Final = 100
"""Shares of fewer frames are taken as shares of so many: one bad frame among the first says nothing."""
LEAST_BOXES: Final = 50
"""Confidence and agreement of fewer boxes say nothing."""


class Symptom(StrEnum):
    """How a device detects badly."""

    FAILED_FRAMES = "failed frames"
    DROPPED_FRAMES = "dropped frames"
    CONFIDENCE = "confidence"
    AGREEMENT = "agreement"


def find_symptoms(health: DetectionHealth, bounds: DetectionBounds) -> dict[Symptom, str]:
    """Return in which ways a device detects badly, each with its figures in words; empty where it does well.

    Args:
        health: What the device reports.
        bounds: How well it has to detect.
    """
    found, frames = {}, max(health.frames, LEAST_FRAMES)
    if health.failed_frames > bounds.failed_frames * frames:
        found[Symptom.FAILED_FRAMES] = f"{health.failed_frames} of {health.frames} frames"
    if health.dropped_frames > bounds.dropped_frames * frames:
        found[Symptom.DROPPED_FRAMES] = f"{health.dropped_frames} of {health.frames} frames"
    loss = health.confidence_before - health.confidence
    if min(health.boxes, health.boxes_before) >= LEAST_BOXES and loss > bounds.confidence_loss:
        found[Symptom.CONFIDENCE] = f"{health.confidence:.2f}, and {health.confidence_before:.2f} before"
    if health.compared_boxes >= LEAST_BOXES and health.differing_boxes > bounds.differing_boxes * health.compared_boxes:
        found[Symptom.AGREEMENT] = f"{health.differing_boxes} of {health.compared_boxes} boxes differ"
    return found
