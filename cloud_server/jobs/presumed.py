"""Job: makes the presumed data set where it has to be generated, in a process that may be busy."""

from __future__ import annotations

from pathlib import Path

from diredi.config import Config
from diredi.data.sources import resolve
from diredi.progress import OnProgress, renamed


class PresumedSpec(Config):
    """Which built-in scenes, and how many of them."""

    presumed: str
    """ "scenes:SITE"."""
    cache: Path
    seed: int
    train: int | None
    val: int | None


class PresumedResult(Config):
    """Where the scenes are."""

    data: Path
    """Path of the data.yaml."""


def main(spec: PresumedSpec, folder: Path, on_progress: OnProgress) -> PresumedResult:
    """Generate the scenes, unless they are in the cache.

    Args:
        spec: Which scenes.
        folder: The job's folder, which stays empty.
        on_progress: Called with the progress.
    """
    report = renamed(on_progress, "presumed")
    path = resolve(spec.presumed, spec.cache, spec.seed, spec.train, spec.val, on_progress=report)
    return PresumedResult(data=path.resolve())
