"""When the rollout of a release goes on, and when it pauses by itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RolloutRules:
    """When a step is followed by the next one, and when a rollout pauses.

    Attributes:
        step_s: How long a step lasts at least, in seconds.
        min_success: Share of a step's devices that have to run the release before the next step.
        max_failures: Share of those that have tried it that may have failed.
    """

    step_s: float = 86_400.0
    min_success: float = 0.9
    max_failures: float = 0.05
