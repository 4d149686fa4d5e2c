"""Download published files once into the user's cache, and verify their digests."""

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
    """A published file."""

    url: str
    bytes: int
    """Size of the file."""
    sha256: str
    """Digest of the file, 64 hex digits."""

    @property
    def name(self) -> str:
        """The file name at the end of the URL."""
        return self.url.rpartition("/")[2]


def cache_folder(name: str) -> Path:
    """Return the cache folder of a set, in `$XDG_CACHE_HOME/diredi` or else in `~/.cache/diredi`."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".cache") / "diredi" / name


def fetch(remote: Remote, folder: Path) -> Path:
    """Download a file unless it is in a folder already. It appears there whole and verified, or not at all.

    Args:
        remote: The published file.
        folder: Folder of the file.

    Returns:
        The path of the file.

    Raises:
        Unreachable: The server does not answer, or not completely.
        CorruptData: The file differs from the published one.
        NoRoom: The disk is full.
        InvalidInput: The folder cannot be written.
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
    left = remote.bytes + 1  # one more byte, to notice a longer file
    try:
        with urlopen(remote.url, timeout=_PATIENCE_S) as answer:
            while left > 0 and (data := answer.read(min(_CHUNK, left))):
                left -= len(data)
                yield data
    except (OSError, HTTPException) as error:
        raise Unreachable(
            f"{remote.url} could not be downloaded ({error}): try again, or name a folder that has {remote.name}"
        ) from None
