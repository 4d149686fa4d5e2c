"""Stores the updater's record in one file, which is replaced as a whole."""

from __future__ import annotations

from pathlib import Path

from diredi.errors import NoRoom
from diredi.store.files import atomic_write, read_state
from edge_node.update_states import UpdateRecord


class UpdateStore:
    """Read and write the updater's record."""

    def __init__(self, path: Path) -> None:
        """Use the file at a path, which need not exist yet."""
        self._path = path

    def read(self) -> UpdateRecord:
        """Return the stored record, or an empty one if there is none or it is damaged."""
        return read_state(self._path, UpdateRecord.model_validate_json) or UpdateRecord()

    def write(self, record: UpdateRecord) -> None:
        """Write the record to disk durably. Raises NoRoom when the disk is full."""
        try:
            atomic_write(self._path, record.model_dump_json(indent=1))
        except OSError as error:
            raise NoRoom(f"{self._path} cannot be written ({error.strerror}): free some disk space") from error
