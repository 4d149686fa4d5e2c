"""The interface of a source of frames."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from diredi.detectors.predictor import Image
from edge_node.sources.reference import SourceSettings


class Frame:
    """Hold one picture of a source, and when it was taken."""

    def __init__(self, image: Image | Callable[[], Image], captured_s: float | None = None) -> None:
        """Hold a picture.

        Args:
            image: uint8, [height, width, 3], BGR; or what makes it, which is called only for frames that are looked at.
            captured_s: Seconds since 1970 by the clock of this machine; None for a source that does not know.
        """
        self._image = image
        self.captured_s = captured_s

    @cached_property
    def image(self) -> Image:
        """The picture: uint8, [height, width, 3], BGR."""
        return self._image() if callable(self._image) else self._image


class Source(Protocol):
    """Give frames one after the other. Only one thread uses it."""

    live: bool
    """Whether the source goes on by itself, as a camera does: a reader that is slower misses the oldest frames."""

    def read(self) -> Frame | None:
        """Return the next frame, or None if there are no more.

        Raises:
            DatasetError: This frame cannot be decoded; the next one may.
            DirediError: The source is away or cannot be read for now. It is closed and opened again later.
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
    credentials: Path | None = None
    """File in netrc format with user names and passwords of cameras."""
    settings: SourceSettings = field(default_factory=SourceSettings)
    """What the reference of this source says behind its `#` signs."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when the source is to end; one that waits for long looks at it."""


OpenSource = Callable[[str, SourceOptions], Source]
