"""What a source of frames is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from diredi.detectors.predictor import Image


class Source(Protocol):
    """Frames, one after the other. Used by one thread only."""

    def read(self) -> Image | None:
        """The next frame, or None when there are no more. Raises Unreachable when the source went away for now."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class SourceOptions:
    cache: Path
    """Where a source that makes its own frames may keep them."""
    repeat: bool = True
    seed: int = 0


OpenSource = Callable[[str, SourceOptions], Source]
