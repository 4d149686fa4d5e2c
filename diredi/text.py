"""Text for people: sizes, times and shares as they read them, and what strangers wrote, made harmless."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_STANDS_FOR: Final = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with a mark in place of each character that cannot be printed.

    These are control characters, with which a terminal is steered, and those that turn the direction of writing.

    Args:
        text: The text of somebody else.
        keep: Characters that stay though they cannot be printed, such as a line's end.

    Examples:
        >>> printable("all is \x1b[2Jwell")
        'all is �[2Jwell'
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else _STANDS_FOR for letter in text)


def bytes_text(count: float) -> str:
    """Return a number of bytes as people read it: 2621440 as "2.50 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.{_places(count)}f} {unit}"
        count /= 1024
    return f"{count:.{_places(count)}f} GiB"


def _places(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 10 else 2


def ago_text(moment: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago a moment was, in the largest unit that fits: "12 s ago"."""
    if moment is None:
        return "never"
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def percent(value: float) -> str:
    """Return a share as the points that papers use: 0.1234 as "12.3"."""
    return f"{100 * value:.1f}"
