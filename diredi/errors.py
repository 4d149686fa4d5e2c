"""Every error that DiReDi raises on purpose, split by what the caller should do next.

    DirediError
    ├── InvalidInput            give up: the input is wrong and will stay wrong        INVALID_ARGUMENT    exit 2
    │   └── DataSetError        ... a data set; names the file and the line
    ├── CorruptData             refresh: bytes do not match their digest or format     DATA_LOSS           exit 3
    ├── NotFound                give up: nothing has that name                         NOT_FOUND           exit 4
    ├── Refused                 give up: the caller may not do that                    PERMISSION_DENIED   exit 5
    ├── WrongState              stop: right, but not now                               FAILED_PRECONDITION exit 6
    ├── NoRoom                  stop: a disk or a quota is full                        RESOURCE_EXHAUSTED  exit 7
    ├── OffsetBeyondEnd         go back: an upload skipped bytes                       OUT_OF_RANGE        exit 3
    └── Unreachable             retry: the other side is away                          UNAVAILABLE         exit 8

A message is one sentence that names the thing and the remedy: "what is wrong, where: what to do".
`diredi/rpc/` turns these into gRPC status codes and back; `diredi_cli/` turns them into exit codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class DirediError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class InvalidInput(DirediError):
    exit_code = 2


class DataSetError(InvalidInput):
    """A data set that cannot be used; `path` and `line` (1-based) say where."""

    def __init__(self, message: str, path: Path | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(where + message)
        self.path = path
        self.line = line


class CorruptData(DirediError):
    exit_code = 3


class NotFound(DirediError):
    exit_code = 4


class Refused(DirediError):
    exit_code = 5


class WrongState(DirediError):
    exit_code = 6


class NoRoom(DirediError):
    exit_code = 7


class OffsetBeyondEnd(DirediError):
    exit_code = 3


class Unreachable(DirediError):
    exit_code = 8
