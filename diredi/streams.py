"""Standard output and error of a process on terminals that cannot show every character."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

_LIKE = {"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{HORIZONTAL ELLIPSIS}": "...",
         "\N{MULTIPLICATION SIGN}": "x", "\N{RIGHTWARDS ARROW}": "->", "\N{GREATER-THAN OR EQUAL TO}": ">=",
         "\N{LESS-THAN OR EQUAL TO}": "<=", "\N{PLUS-MINUS SIGN}": "+-", "\N{MIDDLE DOT}": "-", "\N{BULLET}": "*",
         "\N{GREEK SMALL LETTER LAMDA}": "lambda", "\N{CHECK MARK}": "+",
         "\N{BOX DRAWINGS LIGHT HORIZONTAL}": "-", "\N{BOX DRAWINGS LIGHT VERTICAL}": "|"}  # fmt: skip
_HANDLER = "diredi.printable"


def make_printable() -> None:
    """Let both streams write what their encoding lacks in like characters, where they would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_LIKE.get(letter) or _without_marks(letter) for letter in text), error.end


def _without_marks(letter: str) -> str:
    """The letter itself where its accents are all that is in the way; a lone surrogate is a byte of a file's name."""
    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() or "?"


codecs.register_error(_HANDLER, _replace)
