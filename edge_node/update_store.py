"""The updater's record on disk: one file, replaced as a whole."""

from __future__ import annotations

from pathlib import Path

from diredi.errors import NoRoom
from diredi.store.files import atomic_write, read_state
from edge_node.update_states import UpdateRecord


class UpdateStore:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> UpdateRecord:
        """A fresh record where there is none; also where the file is damaged: the cloud will name the release again."""
        return read_state(self._path, UpdateRecord.model_validate_json) or UpdateRecord()

    def write(self, record: UpdateRecord) -> None:
        """Durable when it returns. Raises NoRoom when the disk is full."""
        try:
            atomic_write(self._path, record.model_dump_json(indent=1))
        except OSError as error:
            raise NoRoom(f"{self._path} cannot be written ({error.strerror}): free some disk space") from error
