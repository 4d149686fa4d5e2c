"""Open an archive of somebody else's, such as an upload: nothing is unpacked, and what would hurt is refused first."""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

from diredi.errors import CorruptData

MAX_FILES: Final = 50_000
MAX_BYTES: Final = 8 << 30
"""What all files may unpack to, together."""
MAX_RATIO: Final = 200
"""How much smaller than its content a file of more than a mebibyte may be. Text with labels shrinks to a thirtieth."""
_DIRECTORY_BYTES: Final = 16 << 20
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED: Final = 1
_DRIVE: Final = re.compile(r"^[A-Za-z]:")


class ForeignArchive:
    """Read files of a zip file by name, each up to a size. A single file with labels is taken as an archive of it."""

    def __init__(self, path: Path) -> None:
        """Look through the directory of an archive.

        Args:
            path: A zip file, or a file with labels in JSON or XML.

        Raises:
            CorruptData: It is neither, or it is made to do harm: it has names that lead out of a folder, links, too
                many files, or files that unpack to far more than they are.
        """
        self._file = _Bounded(io.FileIO(path))
        self._zip: zipfile.ZipFile | None = None
        self._entries: dict[str, zipfile.ZipInfo] = {}
        head = self._file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        if head[:1] in (b"[", b"{", b"<"):
            self.names = ["labels.xml" if head[:1] == b"<" else "labels.json"]
            return
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._entries = _checked(self._zip.infolist())
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
            self.close()
            raise CorruptData(f"this is no zip file that can be read ({error}): make it anew") from None
        except CorruptData:
            self.close()
            raise
        self.names = list(self._entries)
        """Names of files as paths with slashes, sorted."""

    def read(self, name: str, most: int) -> bytes:
        """Return the bytes of a file.

        Args:
            name: One of `names`.
            most: The most bytes that it may have.

        Raises:
            CorruptData: It has more, or is damaged.
        """
        try:
            if self._zip is None:
                self._file.seek(0)
                data = self._file.read(min(most, _DIRECTORY_BYTES - 1) + 1)
            else:
                with self._zip.open(self._entries[name]) as file:
                    data = file.read(most + 1)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, ValueError) as error:
            raise CorruptData(f"{name} in the archive is damaged ({error}): make it anew") from None
        if len(data) > most:
            raise CorruptData(f"{name} in the archive has more than {most} bytes: split it")
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Bounded(io.BufferedReader):
    """A file that gives no more at once than the directory of a zip file may have, which is read as a whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY_BYTES:
            raise CorruptData(f"the archive has too many files: at most {MAX_FILES:,}")
        return super().read(size)


def _checked(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return the files by name, sorted; raises CorruptData for whatever no honest archive has."""
    if len(entries) > MAX_FILES:
        raise CorruptData(f"the archive has {len(entries):,} files: at most {MAX_FILES:,}")
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in sorted(entries, key=lambda entry: entry.filename):
        name = entry.filename
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or _DRIVE.match(name) or not name.isprintable():
            raise CorruptData(f"the archive has a file {name[:200]!r}, whose name leads out of its folder")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise CorruptData(f"the archive has a link ({name[:200]!r}): put the file itself into it")
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
            raise CorruptData(
                f"{name[:200]!r} is encrypted, or packed otherwise than with deflate: make a plain zip file"
            )
        if entry.file_size > 1 << 20 and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            raise CorruptData(
                f"{name[:200]!r} unpacks to more than {MAX_RATIO} times its size: no picture or label does"
            )
        if name in found:
            raise CorruptData(f"the archive has {name[:200]!r} twice")
        if not entry.is_dir():
            found[name] = entry
    if sum(entry.file_size for entry in found.values()) > MAX_BYTES:
        raise CorruptData(f"the archive unpacks to more than {MAX_BYTES >> 30} GiB: split it")
    return found
