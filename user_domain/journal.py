"""What a user domain must remember across a kill; one file, replaced as a whole.

It is small because everything else survives by itself: downloads by digest, jobs by their result, uploads by offset.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from diredi.errors import CorruptData
from diredi.labels import LabelSpace
from diredi.store.blobs import no_room_at


class CycleEntry(BaseModel):
    """`labels` are the ids that the cloud assigned: asked for once, so that a resumed job is the same job."""

    model_config = ConfigDict(extra="forbid")

    labels: LabelSpace | None = None
    failed: dict[str, str] = {}
    """Task id to the reason that the cloud has to hear; such a task is not begun again."""


class _Contents(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cycles: dict[str, CycleEntry] = {}


class Journal:
    """Raises CorruptData when the file is damaged, NoRoom when the disk is full."""

    def __init__(self, path: Path, keep_cycles: int) -> None:
        self._path = path
        self._keep = keep_cycles
        try:
            self._contents = _Contents.model_validate_json(path.read_bytes()) if path.exists() else _Contents()
        except ValidationError:
            raise CorruptData(f"{path} is damaged: move it away, the cloud will offer open tasks again") from None

    @property
    def cycles(self) -> list[str]:
        """Oldest first."""
        return list(self._contents.cycles)

    def begin(self, cycle_id: str) -> None:
        """The newest `keep_cycles` cycles are remembered."""
        cycles = self._contents.cycles
        cycles[cycle_id] = cycles.pop(cycle_id, CycleEntry())
        while len(cycles) > self._keep:
            del cycles[next(iter(cycles))]
        self._write()

    def labels(self, cycle_id: str) -> LabelSpace | None:
        return self._entry(cycle_id).labels

    def set_labels(self, cycle_id: str, labels: LabelSpace) -> None:
        self._entry(cycle_id).labels = labels
        self._write()

    def failure(self, cycle_id: str, task_id: str) -> str | None:
        entry = self._contents.cycles.get(cycle_id)
        return None if entry is None else entry.failed.get(task_id)

    def set_failure(self, cycle_id: str, task_id: str, reason: str) -> None:
        self._entry(cycle_id).failed[task_id] = reason
        self._write()

    def _entry(self, cycle_id: str) -> CycleEntry:
        return self._contents.cycles.setdefault(cycle_id, CycleEntry())

    def _write(self) -> None:
        part = self._path.with_name(self._path.name + ".part")
        with no_room_at(self._path), part.open("w") as file:
            file.write(self._contents.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
