"""Long work (training, distillation, merging) as jobs in processes of their own, so that a server stays a server.

A job is a module with `main(spec: dict, folder: Path, report: Report) -> dict`. It runs as
`python -m diredi.jobs MODULE FOLDER`, reads `FOLDER/spec.json`, reports progress as JSON lines on standard output and
leaves `FOLDER/result.json`. A result that is there is not worked out again: running a job twice does no harm, and a
service that was killed in mid-job starts it once more. The folder is then as the first run left it, so that a job may
go on where it was; another spec finds it empty. A result that is damaged is set aside, and the job runs again.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diredi import errors
from diredi.die_with_parent import die_with_parent
from diredi.store.files import atomic_write, make_folder, read_state

Report = Callable[[str, float, str], None]
"""report(step, fraction 0..1, one short line)."""


RESULT = "result.json"


@dataclass(frozen=True)
class JobProgress:
    step: str
    fraction: float
    message: str


class Executor(Protocol):
    """Where jobs run: this machine by default."""

    async def run(
        self, module: str, spec: dict[str, Any], folder: Path, on_progress: Callable[[JobProgress], Awaitable[None]]
    ) -> dict[str, Any]:
        """The job's result. Raises the DirediError the job raised; DirediError when it died."""
        ...


class LocalExecutor:
    """Each job is a child process of this one; it ends when this one does."""

    async def run(
        self, module: str, spec: dict[str, Any], folder: Path, on_progress: Callable[[JobProgress], Awaitable[None]]
    ) -> dict[str, Any]:
        wanted = json.dumps({"module": module, "spec": spec}, sort_keys=True, indent=1)
        if not _is_of(folder, wanted):
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder)
            atomic_write(folder / "spec.json", wanted)
        elif (made := read_state(folder / RESULT, _object)) is not None:
            return made
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "diredi.jobs", module, str(folder),
                stdout=asyncio.subprocess.PIPE, stderr=log, limit=2**20,
            )  # fmt: skip
            try:
                return await self._follow(process, module, folder, on_progress)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def _follow(
        self,
        process: asyncio.subprocess.Process,
        module: str,
        folder: Path,
        on_progress: Callable[[JobProgress], Awaitable[None]],
    ) -> dict[str, Any]:
        assert process.stdout is not None
        error: errors.DirediError | None = None
        async for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:  # it died in the middle of a line
                continue
            if "error" in said:
                error = getattr(errors, said["error"], errors.DirediError)(said["message"])
            else:
                await on_progress(JobProgress(**said))
        code = await process.wait()
        if error is not None:
            raise error
        if code != 0:
            tail = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise errors.DirediError(f"job {module} ended with {code} ({''.join(tail)}): see {folder / 'log'}")
        made = read_state(folder / RESULT, _object)
        if made is None:
            raise errors.DirediError(f"job {module} ended and left no result: see {folder / 'log'}")
        return made


def _object(data: bytes) -> dict[str, Any]:
    """Raises ValueError for anything but a JSON object."""
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} is no result of a job")
    return found


def _is_of(folder: Path, wanted: str) -> bool:
    try:
        return (folder / "spec.json").read_text() == wanted
    except (OSError, UnicodeDecodeError):
        return False


def job_folder(root: Path, *names: str) -> Path:
    """A folder for a job, named by what it works on."""
    return root / hashlib.sha256("/".join(names).encode()).hexdigest()[:16]


def _main(module: str, folder: Path) -> int:
    die_with_parent(signal.SIGKILL)
    spec = json.loads((folder / "spec.json").read_text())["spec"]
    progress = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print belongs to the log

    def report(step: str, fraction: float, message: str) -> None:
        progress.write(json.dumps({"step": step, "fraction": round(fraction, 4), "message": message}) + "\n")

    try:
        result = importlib.import_module(module).main(spec, folder, report)
        atomic_write(folder / RESULT, json.dumps(result, indent=1))
    except errors.DirediError as error:
        progress.write(json.dumps({"error": type(error).__name__, "message": str(error)}) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], Path(sys.argv[2])))
