"""Files that are there whole or not at all, and what happens to a state file that is damaged."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import structlog

from diredi.errors import InvalidInput, NoRoom

T = TypeVar("T")
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DAMAGE: Final = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What parsing bytes that were not written by us may raise."""


def atomic_write(path: Path, data: bytes | str, *, durable: bool = True, mode: int = 0o666) -> None:
    """Put `data` at `path`, whole or not at all; what was there before stays until then.

    Args:
        path: The file; its folder must exist. Only one writer may be at work at a time.
        data: What it holds afterwards; text is written as UTF-8.
        durable: Whether the file and its name are on disk on return, so that a power cut loses neither.
        mode: Permission bits of the file, less the umask; nobody else can read it even for a moment.

    Raises:
        NoRoom: The disk is full, or a quota is.
        OSError: The folder cannot be written for another reason.
    """
    part = part_of(path)
    with no_room_at(path):
        try:
            part.unlink(missing_ok=True)
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
            publish(part, path, durable=durable)
        except (OSError, NoRoom):
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def append_durably(path: Path, data: bytes) -> None:
    """Append to a file; the bytes, and the file's name where it is new, are on disk on return. Raises NoRoom.

    Args:
        path: The file; its folder must exist.
        data: What is appended.
    """
    with no_room_at(path):
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(path.parent)


def part_of(path: Path) -> Path:
    """Return where the bytes of `path` grow before they take its name: beside it, so that a rename is enough."""
    return path.with_name(path.name + ".part")


def publish(part: Path, path: Path, *, durable: bool = True) -> None:
    """Give the finished file `part` the name `path` in one step.

    Args:
        part: A file that is complete and closed, on the same disk.
        path: Its name from now on; a file that has that name is replaced.
        durable: Whether its bytes are on disk before it has the name, and the name is on disk on return.

    Raises:
        NoRoom: The disk turned out to be full.
    """
    with no_room_at(path):
        if durable:
            _sync(part)
        part.replace(path)
        if durable:
            sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents; the names of those that are new are on disk on return. Raises NoRoom."""
    with no_room_at(folder):
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in reversed(new):
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, so that a power cut loses none of them."""
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def no_room_at(path: Path) -> Iterator[None]:
    """Turn the operating system's "disk full" (and quota, and file too large) into NoRoom that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoRoom(f"no room on the disk of {path} ({error.strerror}): free some and try again") from None


def check_room(folder: Path, wanted_bytes: int) -> None:
    """Raise NoRoom when the disk of `folder` has less left than `wanted_bytes`, before anything is written."""
    free = shutil.disk_usage(folder).free
    if free < wanted_bytes:
        raise NoRoom(f"no room on the disk of {folder}: {wanted_bytes} bytes are to come, {free} are free; free some")


def read_state(path: Path, parse: Callable[[bytes], T]) -> T | None:
    """Read a state file that a service can do without.

    One that is empty, cut or garbage does not keep the service from starting: it is set aside beside its place, said in
    the log (`state_file_damaged`), and None is returned as if there were none.

    Args:
        path: The file.
        parse: What its bytes mean; any of the usual errors of parsing says that they mean nothing.

    Returns:
        What `parse` made of the file; None where there is no file, or was none that can be used.

    Raises:
        InvalidInput: This user may not read the file, which does not say that it is damaged.
    """
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): make this user its owner") from None
    except (*_DAMAGE, OSError) as error:
        aside = set_aside(path)
        structlog.get_logger().error(
            "state_file_damaged",
            path=str(path),
            why=" ".join(f"{type(error).__name__}: {error}".splitlines()[:2])[:300],
            set_aside_as=str(aside) if aside else "nothing: it could not be renamed",
        )
        return None


def set_aside(path: Path) -> Path | None:
    """Rename a damaged file to `<name>.damaged-<n>`, the first free n; None where that is not possible."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError:
        return None
    return aside
