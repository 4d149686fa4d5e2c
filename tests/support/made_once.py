"""What takes long to make and is the same for all tests: made by the first that asks, kept until its code changes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".pytest_cache" / "made"


def made_once(name: str, make: Callable[[Path], None], code: Iterable[Path]) -> Path:
    """A folder that `make` has filled; tests may read it and not write to it.

    Its key is a hash of the library, of the versions that are installed, and of `code`, the files that say what is
    made. So a test of what was learned is never shown what older code has learned.
    """
    library = sorted((ROOT / "diredi").rglob("*.py"))
    content = hashlib.sha256()
    for file in [*library, ROOT / "constraints.txt", *sorted(code)]:
        content.update(f"{file}\n".encode() + file.read_bytes())
    folder = CACHE / f"{name}-{content.hexdigest()[:16]}"
    whole = folder / ".whole"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder
