"""How far long work is: one value and one signature for every function, job and command that takes a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Progress:
    """How far long work is, as `on_progress` hears of it.

    Examples:
        >>> print(Progress("tutor-2", 0.25, "step 3 of 12"))
        tutor-2: 25 %, step 3 of 12
    """

    step: str
    """Name of the part of the work, such as "tutor-2" or "apply"; lower case, stable, fit for programs."""
    fraction: float
    """How much of this step is done, 0 to 1."""
    message: str = ""
    """One short line for people; may be empty."""

    def __str__(self) -> str:
        """Return the line that a terminal shows."""
        return f"{self.step}: {100 * self.fraction:.0f} %{f', {self.message}' if self.message else ''}"


OnProgress: TypeAlias = Callable[[Progress], None]
"""Called, often, from the thread that works; what it raises ends the work."""


def report(on_progress: OnProgress | None, step: str, fraction: float, message: str = "") -> None:
    """Tell `on_progress`, where there is one, how far a step is.

    Args:
        on_progress: Whom to tell; None tells nobody.
        step: Name of the part of the work.
        fraction: How much of it is done, 0 to 1.
        message: One short line for people.
    """
    if on_progress is not None:
        on_progress(Progress(step, fraction, message))


def renamed(on_progress: OnProgress | None, step: str) -> OnProgress | None:
    """Return an `on_progress` that calls everything it hears by the name of one step of larger work.

    Args:
        on_progress: Whom to tell; None tells nobody.
        step: The name that is told instead.
    """
    if on_progress is None:
        return None
    return lambda progress: on_progress(replace(progress, step=step))
