"""Text of strangers: what another party wrote must not steer the terminal of the person who reads it."""

from __future__ import annotations

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
