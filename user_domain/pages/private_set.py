"""What the page of the private data set shows, read from the files when somebody looks."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from diredi.data.dataset import SPLITS, Dataset, Sample, Split, load
from diredi.errors import DirediError, NotFound
from user_domain.private_data import PrivateData


@dataclass(frozen=True)
class Read:
    """The private data set as it was read for a page."""

    data: Dataset
    twice: list[list[Path]]
    """Images that are there more than once, byte for byte."""
    in_both: int
    """How many of these groups have an image to learn from and one that is held out."""

    @cached_property
    def digests(self) -> frozenset[str]:
        """SHA-256 of all images, in hexadecimal; takes a while for a large set."""
        images = [sample.image for split in SPLITS for sample in self.data.split(split)]
        return frozenset(hashlib.sha256(image.read_bytes()).hexdigest() for image in images if image.is_file())

    def sample(self, split: Split, number: int) -> Sample:
        """Return an image by its place. Raises NotFound."""
        samples = self.data.split(split)
        if not 0 <= number < len(samples):
            raise NotFound(f"the data set has no image {number} in {split}: it may have changed, open the page again")
        return samples[number]


class PrivateSet:
    """Read the private data set for its page, once for each state in which the service knows it."""

    def __init__(self, known: Callable[[], PrivateData]) -> None:
        """Make it.

        Args:
            known: Returns what the service itself knows of the data set.
        """
        self._known = known
        self._lock = threading.Lock()
        self._read: tuple[PrivateData, Read] | None = None

    def read(self) -> Read:
        """Return the data set. Raises DatasetError; takes a while for a large one."""
        with self._lock:
            known = self._known()
            if self._read is None or self._read[0] is not known:
                if not known.train_images + known.held_out_images:
                    return Read(Dataset(Path(), (), [], []), [], 0)
                data = load(known.path, read_labels=bool(known.names)).renamed(known.renamed)
                twice = _twice(sample.image for split in SPLITS for sample in data.split(split))
                train = {sample.image for sample in data.train}
                in_both = sum(0 < sum(path in train for path in group) < len(group) for group in twice)
                self._read = known, Read(data, twice, in_both)
            return self._read[1]


def _twice(images: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of files with the same bytes."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in images:
        by_size[path.stat().st_size].append(path)
    by_digest: dict[str, list[Path]] = defaultdict(list)
    for group in by_size.values():
        for path in group if len(group) > 1 else ():
            by_digest[hashlib.sha256(path.read_bytes()).hexdigest()].append(path)
    return [group for group in by_digest.values() if len(group) > 1]


def newest_audit(jobs: Path) -> Path | None:
    """Return the page of doubtful labels that the last training has left; None where there is none."""
    try:
        found = sorted(jobs.glob("*/extract/label-audit.html"), key=lambda path: path.stat().st_mtime)
    except (OSError, DirediError):
        return None
    return found[-1] if found else None
