"""Deletes samples with proof: an entry in the site's journal that says which, when and by whom, and no file is left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from diredi.consent import ConsentEntry
from diredi.errors import InvalidInput, WrongState
from user_domain.consent import NO_CYCLE, ConsentJournal
from user_domain.samples import SampleStore

A_LINE: Final = 1000
"""So many digests stand in one entry of the journal."""


@dataclass(frozen=True)
class Deletion:
    """Delete samples for good, with all that was made of them.

    The entry is written first: a process that is killed finishes the deletion when it starts again. It holds for ever,
    so that a backup that is put back, or an edge node that hands the frame over again, brings no picture back.
    """

    samples: SampleStore
    journal: ConsentJournal
    joined: Path
    """Folder of the data sets in which labelled samples are joined with other data."""
    jobs: Path
    """Folder of the work files, in which pages of doubtful labels show pictures."""
    working_on: Callable[[], str]
    """Returns the cycle whose work is under way; empty for none."""
    read_again: Callable[[], None]
    """Reads the private data set again."""

    def finish(self) -> None:
        """Delete what the journal says is deleted, as when the service starts. Raises WrongState."""
        gone = {one for entry in self.entries() for one in entry.what.get("samples", ())}
        if gone:
            self._delete(gone, self._copies(gone))

    def entries(self) -> list[ConsentEntry]:
        """Return what was deleted, newest first."""
        return list(reversed(self.journal.find(NO_CYCLE, "deleted")))

    def delete(self, sample_ids: Sequence[str], *, by: str, reason: str = "") -> list[ConsentEntry]:
        """Delete samples.

        Args:
            sample_ids: Which; each must be there.
            by: Who says so.
            reason: Why.

        Returns:
            The entries that prove it.

        Raises:
            NotFound: There is no such sample; nothing is deleted.
            InvalidInput: None is named.
            WrongState: A training reads them now, or a file cannot be deleted.
            NoRoom: The disk is full; nothing is deleted.
        """
        wanted = list(dict.fromkeys(sample_ids))
        if not wanted:
            raise InvalidInput("no frame is chosen: name one or more")
        infos = [self.samples.get(sample_id) for sample_id in wanted]
        copies = self._copies(set(wanted))
        if copies and (cycle := self.working_on()):
            raise WrongState(f"a training reads them now ({cycle[:64]}): delete them when it has ended")
        entries = []
        for first in range(0, len(wanted), A_LINE):
            ids = wanted[first : first + A_LINE]
            labelled = sum(info.labels is not None for info in infos[first : first + A_LINE])
            what = {"samples": ids, "labelled": labelled}
            entries.append(self.journal.record("deleted", NO_CYCLE, what, by=by, reason=reason))
        self._delete(set(wanted), copies)
        if copies:
            self.read_again()
        structlog.get_logger().info("samples_deleted", by=by, samples=len(wanted), reason=reason)
        return entries

    def remaining(self, entry: ConsentEntry) -> int:
        """Return how many pictures of an entry are still on the disk, which is none."""
        gone = set(entry.what.get("samples", ()))
        there = {info.id for info in self.samples.find()} & gone
        return len(there | {path.stem for folder in self._copies(gone) for path in folder.rglob("*")} & gone)

    def _delete(self, sample_ids: set[str], copies: list[Path]) -> None:
        self.samples.delete_for_good(sample_ids)
        for folder in copies:
            shutil.rmtree(folder)
        for page in self.jobs.glob("*/extract/label-audit.html") if copies else ():
            page.unlink(missing_ok=True)

    def _copies(self, sample_ids: set[str]) -> list[Path]:
        """Return the joint data sets that have one of these samples; they are made anew for the next cycle."""
        folders = [path for path in self.joined.iterdir() if path.is_dir()] if self.joined.is_dir() else []
        return [
            folder for folder in folders if any(path.stem in sample_ids for path in (folder / "images").glob("*/*"))
        ]
