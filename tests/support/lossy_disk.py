"""A disk that loses what was not synced, and one whose k-th operation fails, both in this process.

`LossyDisk` watches a folder while something is written there. At each step that changes names or syncs, it notes what a
power cut could leave behind: every file has the bytes that were synced, and a folder has either the names that were
synced or those that were there. Each such state can be laid out in another folder and read again.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

_STEPS = ("fsync", "replace", "rename", "unlink", "mkdir", "link")


@dataclass(frozen=True)
class CrashState:
    """What a power cut could leave: `returned` says how many operations had returned by then."""

    label: str
    files: dict[str, bytes | None]
    """By path; None for a folder."""
    returned: int

    def lay_out(self, folder: Path) -> Path:
        """Write the state into a folder and return that."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in sorted(self.files.items()):
            path = folder / name
            if data is None:
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                path.chmod(0o600)
        return folder


@dataclass
class LossyDisk:
    """What a power cut could have left at each step of what was done below `root` in `recording`."""

    root: Path
    states: list[CrashState] = field(default_factory=list)
    returned: int = 0
    _bytes: dict[int, bytes] = field(default_factory=dict)
    _names: dict[int, dict[str, int]] = field(default_factory=dict)
    _held: list[int] = field(default_factory=list)

    @contextmanager
    def recording(self) -> Iterator[LossyDisk]:
        """Watch; what is there already counts as synced."""
        for folder, _, files in os.walk(self.root):
            self._sync_folder(Path(folder))
            for name in files:
                self._sync_file(Path(folder) / name)
        with contextmanager_stack([mock.patch.object(os, name, self._wrap(name)) for name in _STEPS]):
            yield self
        self.note("end")
        for handle in self._held:
            os.close(handle)
        self._held.clear()

    def done(self) -> None:
        """Say that one more operation has returned, so that what it did must survive."""
        self.returned += 1
        self.note("returned")

    def note(self, label: str) -> None:
        """Note what a power cut could leave now."""
        for kept in (False, True):
            files: dict[str, bytes | None] = {}
            self._collect(self.root, "", files, kept)
            self.states.append(CrashState(f"{label}, {'with' if kept else 'without'} names", files, self.returned))

    def _wrap(self, name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def step(*arguments: Any, **named: Any) -> Any:
            self.note(f"before {name}")
            result = real(*arguments, **named)
            if name == "fsync":
                self._synced(int(arguments[0]))
            self.note(f"after {name}")
            return result

        return step

    def _synced(self, handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path == self.root or self.root in path.parents:
            self._sync_folder(path) if path.is_dir() else self._sync_file(path)

    def _sync_file(self, path: Path) -> None:
        self._hold(path)
        self._bytes[path.stat().st_ino] = path.read_bytes()

    def _sync_folder(self, path: Path) -> None:
        self._hold(path)
        for entry in path.iterdir():
            self._hold(entry)
        self._names[path.stat().st_ino] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}

    def _hold(self, path: Path) -> None:
        """Keep a file open, so that the system gives its number to no other one."""
        self._held.append(os.open(path, os.O_RDONLY))

    def _collect(self, folder: Path, prefix: str, files: dict[str, bytes | None], kept: bool) -> None:
        number = folder.stat().st_ino
        present = {entry.name: entry for entry in folder.iterdir()} if folder.is_dir() else {}
        numbers = {name: entry.stat().st_ino for name, entry in present.items()}
        names = numbers if kept else self._names.get(number, {})
        folders = {entry.stat().st_ino: entry for entry in present.values() if entry.is_dir()}
        for name, inode in names.items():
            if inode in folders:
                files[prefix + name] = None
                self._collect(folders[inode], f"{prefix}{name}/", files, kept)
            else:
                files[prefix + name] = self._bytes.get(inode, b"")


@contextmanager
def contextmanager_stack(patches: list[Any]) -> Iterator[None]:
    """Enter all patches for a block."""
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()


def failing_each(prepare: Callable[[], None], operation: Callable[[], Any], check: Callable[[str], None]) -> int:
    """Let each step of an operation fail once, the first, then the second and so on, and check what is left.

    Args:
        prepare: Makes the state of before.
        operation: What is tried; a failure may only leave it as OSError or DirediError.
        check: Called after each failure with what failed.

    Returns:
        How many failures there were.
    """
    failures = 0
    for name in (*_STEPS, "open"):
        for number in range(1, 1000):
            prepare()
            left, real_step = number, getattr(os, name)

            def step(*arguments: Any, real: Callable[..., Any] = real_step, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*arguments, **named)

            with mock.patch.object(os, name, step):
                _try(operation)
            if left > 0:
                break
            failures += 1
            check(f"{name} {number}")
    return failures


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a disk that is full there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def _try(operation: Callable[[], Any]) -> None:
    from diredi.errors import DirediError

    try:
        operation()
    except (OSError, DirediError) as error:
        assert str(error)
