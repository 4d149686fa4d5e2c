"""The interface of a source of frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from diredi.detectors.predictor import Image


class Source(Protocol):
    """Give frames one after the other. Only one thread uses it."""

    def read(self) -> Image | None:
        """Return the next frame, or None if there are no more.

        Raises:
            Unreachable: The source is away for now.
        """
        ...

    def close(self) -> None:
        """Release what the source holds."""
        ...


@dataclass(frozen=True)
class SourceOptions:
    """Hold what every source is told."""

    cache: Path
    """Folder in which a source that makes its own frames may keep them."""
    repeat: bool = True
    """Whether a folder or a video starts again at its end."""
    seed: int = 0
    """Seed of frames that are made."""


OpenSource = Callable[[str, SourceOptions], Source]
