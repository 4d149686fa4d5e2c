"""When the rollout of a release goes on, and when it stops by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class OnHarm(StrEnum):
    """What becomes of a rollout that does harm."""

    PAUSE = "pause"
    ABORT = "abort"


@dataclass(frozen=True)
class DetectionBounds:
    """How well a device has to detect with a release; one that does not is unhealthy.

    Attributes:
        failed_frames: Share of its frames on which the release may fail.
        dropped_frames: Share of its frames on which no model may detect.
        confidence_loss: By how much the mean confidence may be below that of the release before, 0 to 1.
        differing_boxes: Share of the compared boxes that may differ from those of the release before.
    """

    failed_frames: float = 0.01
    dropped_frames: float = 0.01
    confidence_loss: float = 0.15
    differing_boxes: float = 0.5


@dataclass(frozen=True)
class RolloutRules:
    """When a step is followed by the next one, and when a rollout stops.

    Attributes:
        step_s: How long a step lasts at least, in seconds.
        min_success: Share of a step's devices that have to run the release, in good health, before the next step.
        max_failures: Share of those that have tried it that may have failed to install it.
        max_unhealthy: Share of those that run it that may be unhealthy.
        bounds: When one is.
        on_harm: What happens when there are more failures or unhealthy devices.
    """

    step_s: float = 86_400.0
    min_success: float = 0.9
    max_failures: float = 0.05
    max_unhealthy: float = 0.05
    bounds: DetectionBounds = field(default_factory=DetectionBounds)
    on_harm: OnHarm = OnHarm.PAUSE
