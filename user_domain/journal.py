"""The journal: what a user domain must remember across a kill, in one file that is replaced as a whole.

It is small because everything else survives by itself: downloads by digest, jobs by their result, uploads by offset.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from diredi.labels import LabelSpace
from diredi.store.files import atomic_write, read_state


class CycleEntry(BaseModel):
    """Hold what is remembered of one cycle."""

    model_config = ConfigDict(extra="forbid")

    labels: LabelSpace | None = None
    """The ids that the cloud assigned; asked for once, so that a resumed job is the same job."""
    failed: dict[str, str] = {}
    """Task id to the reason that the cloud is told; such a task is not begun again."""


class _Contents(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cycles: dict[str, CycleEntry] = {}


class Journal:
    """Remember the last cycles. Every change is on disk when its method returns; it raises NoRoom if the disk is full.

    A file that is damaged is set aside, and nothing is assumed in its place: class ids are asked for again, and a task
    that failed may be tried again. That a site has agreed to a cycle was never in it.
    """

    def __init__(self, path: Path, keep_cycles: int) -> None:
        """Read the file at a path, if there is one, and remember so many cycles."""
        self._path = path
        self._keep = keep_cycles
        self._contents = read_state(path, _Contents.model_validate_json) or _Contents()

    @property
    def cycles(self) -> list[str]:
        """The remembered cycles, oldest first."""
        return list(self._contents.cycles)

    def begin(self, cycle_id: str) -> None:
        """Remember a cycle as the newest, and forget the oldest ones beyond `keep_cycles`."""
        cycles = self._contents.cycles
        cycles[cycle_id] = cycles.pop(cycle_id, CycleEntry())
        while len(cycles) > self._keep:
            del cycles[next(iter(cycles))]
        self._write()

    def labels(self, cycle_id: str) -> LabelSpace | None:
        """Return the label space of a cycle; None if there is none yet."""
        return self._entry(cycle_id).labels

    def set_labels(self, cycle_id: str, labels: LabelSpace) -> None:
        """Remember the label space of a cycle."""
        self._entry(cycle_id).labels = labels
        self._write()

    def failure(self, cycle_id: str, task_id: str) -> str | None:
        """Return why a task failed; None if it did not."""
        entry = self._contents.cycles.get(cycle_id)
        return None if entry is None else entry.failed.get(task_id)

    def set_failure(self, cycle_id: str, task_id: str, reason: str) -> None:
        """Remember that a task failed, and why."""
        self._entry(cycle_id).failed[task_id] = reason
        self._write()

    def _entry(self, cycle_id: str) -> CycleEntry:
        return self._contents.cycles.setdefault(cycle_id, CycleEntry())

    def _write(self) -> None:
        atomic_write(self._path, self._contents.model_dump_json(indent=1))
