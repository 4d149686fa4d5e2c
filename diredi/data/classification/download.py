"""Published files, fetched once into the user's cache. Bytes count only when they are known to be the right ones."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.request import urlopen

from diredi.errors import CorruptData, InvalidInput, Unreachable
from diredi.store.files import check_room, no_room_at, publish

_CHUNK = 1 << 20
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Remote:
    """A published file and what is known of its content; `sha256` is 64 hex digits."""

    url: str
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def cache_folder(name: str) -> Path:
    """Where a set lies when the user names no folder: in `$XDG_CACHE_HOME/diredi`, or else in `~/.cache/diredi`."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "diredi" / name


def fetch(remote: Remote, folder: Path) -> Path:
    """The file in `folder`, downloaded unless it is there; it appears whole and verified, or not at all.

    Raises Unreachable (no answer, or not all of it), CorruptData (other bytes than those published), NoRoom, and
    InvalidInput when `folder` cannot be written.
    """
    path = folder / remote.name
    if path.exists():
        return path
    try:
        with no_room_at(folder):
            folder.mkdir(parents=True, exist_ok=True)
            check_room(folder, remote.bytes)
            handle, part = tempfile.mkstemp(dir=folder, prefix=f"{remote.name}.", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    _receive(remote, file)
                publish(Path(part), path)
            finally:
                Path(part).unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"{folder} cannot be used as a cache ({error.strerror}): name a folder that has {remote.name}, "
            "or another cache in XDG_CACHE_HOME"
        ) from None
    return path


def _receive(remote: Remote, file: BinaryIO) -> None:
    sha, size = hashlib.sha256(), 0
    for data in _chunks(remote):
        file.write(data)
        sha.update(data)
        size += len(data)
    if size < remote.bytes:
        raise Unreachable(f"{remote.url} broke off after {size} of {remote.bytes} bytes: try again")
    if size > remote.bytes or sha.hexdigest() != remote.sha256:
        raise CorruptData(f"{remote.url} is not the file that was published: fetch {remote.name} from elsewhere")


def _chunks(remote: Remote) -> Iterator[bytes]:
    left = remote.bytes + 1  # the last one tells a longer file from the right one
    try:
        with urlopen(remote.url, timeout=_PATIENCE_S) as answer:
            while left > 0 and (data := answer.read(min(_CHUNK, left))):
                left -= len(data)
                yield data
    except (OSError, HTTPException) as error:
        raise Unreachable(
            f"{remote.url} could not be downloaded ({error}): try again, or name a folder that has {remote.name}"
        ) from None
