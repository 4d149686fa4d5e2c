"""The updater's record on disk: one file, replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import structlog
from pydantic import ValidationError

from diredi.errors import NoRoom
from edge_node.update_states import Record


class RecordFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Record:
        """A fresh record where there is none; also where the file is damaged: the cloud will name the release again."""
        try:
            return Record.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return Record()
        except ValidationError as error:
            structlog.get_logger().error("record_damaged", path=str(self._path), problems=error.error_count())
            return Record()

    def write(self, record: Record) -> None:
        """Durable when it returns. Raises NoRoom when the disk is full."""
        part = self._path.with_suffix(".part")
        try:
            with part.open("w") as file:
                file.write(record.model_dump_json(indent=1))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            raise NoRoom(f"{self._path} cannot be written ({error.strerror}): free some disk space") from error
