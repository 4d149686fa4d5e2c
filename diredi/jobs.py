"""Long work (training, distillation, merging) as jobs in processes of their own, so that a server stays a server.

A job is a module with `main(spec: Spec, folder: Path, on_progress: OnProgress) -> Result`, where `Spec` and `Result`
are pydantic models that the job and whoever starts it share. It runs as `python -m diredi.jobs MODULE FOLDER`, reads
`FOLDER/spec.json`, reports progress as JSON lines on standard output and leaves `FOLDER/result.json`. A result that is
there is not worked out again: running a job twice does no harm, and a service that was killed in mid-job starts it once
more. The folder is then as the first run left it, so that a job may go on where it was; another spec finds it empty. A
result that is damaged is set aside, and so is one whose files are not what it says: the job runs again.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar, get_type_hints

import structlog
from pydantic import BaseModel, ValidationError

from diredi import errors
from diredi.child_process import die_with_parent
from diredi.progress import OnProgress, Progress
from diredi.store.blobs import digest_of_file
from diredi.store.files import atomic_write, make_folder, read_state

Json = dict[str, Any]
RESULT = "result.json"
Result = TypeVar("Result", bound=BaseModel)
Heard = Callable[[Progress], Awaitable[None]]
"""What a service does with the progress of a job."""


class Executor(Protocol):
    """Where jobs run: this machine by default."""

    async def run(self, module: str, spec: BaseModel, result: type[Result], folder: Path, on_progress: Heard) -> Result:
        """Run a job, unless it has run already.

        Args:
            module: The job's module.
            spec: What it is told.
            result: What it answers with.
            folder: Its own folder, which it may find as an earlier run of the same job left it.
            on_progress: Awaited with all that the job says of its progress.

        Raises:
            DirediError: What the job raised; or the job died, or has left something else than such a result.
        """
        ...


class LocalExecutor:
    """Each job is a child process of this one; it ends when this one does."""

    async def run(self, module: str, spec: BaseModel, result: type[Result], folder: Path, on_progress: Heard) -> Result:
        """See `Executor.run`."""
        wanted = json.dumps({"module": module, "spec": spec.model_dump(mode="json")}, sort_keys=True, indent=1)
        if _is_of(folder, wanted):
            finished = read_state(folder / RESULT, _parsed(result))
            if finished is not None:
                damaged = await asyncio.to_thread(_find_damaged, finished)
                if damaged is None:
                    return finished
                structlog.get_logger().error("job_file_damaged", path=str(damaged), module=module)
                shutil.rmtree(folder, ignore_errors=True)
        if not _is_of(folder, wanted):
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder)
            atomic_write(folder / "spec.json", wanted)
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "diredi.jobs", module, str(folder),
                stdout=asyncio.subprocess.PIPE, stderr=log, limit=2**20,
            )  # fmt: skip
            try:
                await self._follow(process, module, folder, on_progress)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        made = read_state(folder / RESULT, _parsed(result))
        if made is None:
            raise errors.CorruptData(f"job {module} ended and left no usable result: see {folder / 'log'}")
        return made

    async def _follow(self, process: asyncio.subprocess.Process, module: str, folder: Path, on_progress: Heard) -> None:
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
                await on_progress(Progress(**said))
        code = await process.wait()
        if error is not None:
            raise error
        if code != 0:
            tail = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise errors.DirediError(f"job {module} ended with {code} ({''.join(tail)}): see {folder / 'log'}")


def _is_of(folder: Path, wanted: str) -> bool:
    try:
        return (folder / "spec.json").read_text() == wanted
    except (OSError, UnicodeDecodeError):
        return False


def _find_damaged(result: object) -> Path | None:
    """Return a file that a result names with its digest and that is not there as it was made; None: all are."""
    if isinstance(result, BaseModel):
        digest = getattr(result, "digest", None)
        for _, value in result:
            if isinstance(value, Path) and isinstance(digest, str):
                if not value.is_file() or digest_of_file(value).digest != digest:
                    return value
            elif (damaged := _find_damaged(value)) is not None:
                return damaged
    elif isinstance(result, list | tuple):
        return next((damaged for item in result if (damaged := _find_damaged(item)) is not None), None)
    return None


def _parsed(kind: type[Result]) -> Callable[[bytes], Result]:
    """Return what parses a result; it raises ValueError for something that is none."""
    return lambda data: kind.model_validate(json.loads(data))


def call(main: Callable[..., BaseModel], spec: Json, folder: Path, on_progress: OnProgress) -> Json:
    """Call a job's `main` in this process, with JSON in and JSON out.

    Args:
        main: The job's function; its annotations say which model its specification is.
        spec: The specification.
        folder: The job's own folder.
        on_progress: Hears of its progress.

    Raises:
        InvalidInput: The specification is not one for this job.
    """
    kind: type[BaseModel] = get_type_hints(main)["spec"]
    try:
        told = kind.model_validate(spec)
    except ValidationError as error:
        raise errors.InvalidInput(f"this is no specification for {main.__module__} ({error}): correct it") from None
    return main(told, folder, on_progress).model_dump(mode="json")


def job_folder(root: Path, *names: str) -> Path:
    """A folder for a job, named by what it works on."""
    return root / hashlib.sha256("/".join(names).encode()).hexdigest()[:16]


def _imported(name: str) -> ModuleType:
    """Import a module, and never look for garbage among what that makes: it would take half as long again."""
    gc.disable()
    module = importlib.import_module(name)
    gc.freeze()
    gc.enable()
    return module


def _main(module: str, folder: Path) -> int:
    die_with_parent(signal.SIGKILL)
    progress = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print belongs to the log

    def tell(line: dict[str, object]) -> None:
        progress.write(json.dumps(line) + "\n")

    def heard(now: Progress) -> None:
        tell(asdict(replace(now, fraction=round(now.fraction, 4))))

    try:
        spec = json.loads((folder / "spec.json").read_text())["spec"]
        result = call(_imported(module).main, spec, folder, heard)
    except errors.DirediError as error:
        tell({"error": type(error).__name__, "message": str(error)})
        return 1
    atomic_write(folder / RESULT, json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], Path(sys.argv[2])))
