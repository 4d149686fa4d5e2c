"""Every error that DiReDi raises on purpose, split by what the caller should do next.

    DirediError
    ├── InvalidInput            give up: the input is wrong and will stay wrong        INVALID_ARGUMENT    exit 2
    │   └── DatasetError        ... a data set; names the file and the line
    │       └── NoLabels        ... that has images and not one labelled box
    ├── CorruptData             refresh: bytes do not match their digest or format     DATA_LOSS           exit 3
    │   └── Untrusted           ... or nobody whom we trust has signed them
    ├── NotFound                give up: nothing has that name                         NOT_FOUND           exit 4
    ├── Refused                 give up: the caller may not do that                    PERMISSION_DENIED   exit 5
    ├── WrongState              stop: right, but not now                               FAILED_PRECONDITION exit 6
    ├── NoRoom                  stop: a disk or a quota is full                        RESOURCE_EXHAUSTED  exit 7
    ├── OffsetBeyondEnd         go back: an upload skipped bytes                       OUT_OF_RANGE        exit 3
    └── Unreachable             retry: the other side is away                          UNAVAILABLE         exit 8
        ├── RateLimited         ... or there were too many calls; it says how long     RESOURCE_EXHAUSTED  exit 8
        ├── RemoteFailure       ... or is there and failed at it, which may pass       INTERNAL            exit 1
        └── Unauthenticated     ... to us, until our certificate is renewed            UNAUTHENTICATED     exit 5

A message is one sentence that names the thing and the remedy: "what is wrong, where: what to do".
`diredi/rpc/` turns these into gRPC status codes and back; `diredi_cli/` turns them into exit codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class DirediError(Exception):
    """The root of all errors that DiReDi raises on purpose.

    Attributes:
        exit_code: What the command line exits with after this error.
    """

    exit_code: ClassVar[int] = 1


class InvalidInput(DirediError):
    """The input is wrong and will stay wrong: change it before trying again."""

    exit_code = 2


class DatasetError(InvalidInput):
    """A data set cannot be used.

    Args:
        message: What is wrong and what to do, without the place.
        path: The file at fault, if it is one file.
        line: The line at fault in that file, counted from 1.
    """

    def __init__(self, message: str, path: Path | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}, line {line}: "
        super().__init__(where + message)
        self.path = path
        self.line = line


class NoLabels(DatasetError):
    """A data set has images and not one labelled box: label some, or let an oracle say what is on them."""


class CorruptData(DirediError):
    """Bytes do not match their digest or their format: get them again."""

    exit_code = 3


class Untrusted(CorruptData):
    """Nobody whom this machine trusts has signed these bytes, or what was signed is not this: go on with what runs."""


class NotFound(DirediError):
    """Nothing has that name."""

    exit_code = 4


class Refused(DirediError):
    """The caller may not do that."""

    exit_code = 5


class WrongState(DirediError):
    """The request is right, but not in the present state."""

    exit_code = 6


class NoRoom(DirediError):
    """A disk or a quota is full: free some room and try again."""

    exit_code = 7


class OffsetBeyondEnd(DirediError):
    """An upload skipped bytes: go on from the offset that the other side names."""

    exit_code = 3


class Unreachable(DirediError):
    """The other side is away: try again later."""

    exit_code = 8


class RateLimited(Unreachable):
    """The caller has made too many calls in a short time: try again after a pause.

    Args:
        message: What was too much.
        retry_after_s: How long to wait, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RemoteFailure(Unreachable):
    """The other side answered that something went wrong there; that says nothing about what was asked of it."""

    exit_code = 1


class Unauthenticated(Unreachable):
    """The caller's certificate has expired or was revoked: renew it and try again."""

    exit_code = 5
