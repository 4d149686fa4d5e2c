"""Bytes and messages of strangers: whatever is wrong with them is an error that says so, and no defect of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from diredi.errors import DirediError

_STRAY: Final = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError, AttributeError, MemoryError)


@contextmanager
def decoding(what: str, error: type[DirediError]) -> Iterator[None]:
    """Turn what a decoder raises for bytes that nobody foresaw into one of our errors.

    Args:
        what: What is decoded, as the beginning of a sentence.
        error: The error to raise.

    Raises:
        DirediError: The given error, where the block has raised one of the usual errors of parsing; an error of our own
            stays what it is.
    """
    try:
        yield
    except DirediError:
        raise
    except _STRAY as stray:
        why = " ".join(f"{type(stray).__name__}: {stray}".split())[:200]
        raise error(f"{what} cannot be decoded ({why}): make it again and send it whole") from None
