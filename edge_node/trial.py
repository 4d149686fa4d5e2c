"""Tries a release in a process of its own, with limits of time and memory, before it may run in the node.

    python -m edge_node.trial FILE THREADS MEMORY_MIB

Standard input is a live frame as a .npy file, or empty. Exit code 0: the file is a detector and gives sensible results.
Exit code 1 with a sentence on standard output: it does not. Anything else: the process died of it.
"""

from __future__ import annotations

import asyncio
import io
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from diredi.detectors.golden import explain_golden_difference
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Image
from diredi.errors import DirediError, InvalidInput
from edge_node.active_model import warm_up

REFUSED: Final = 1
"""Exit code of a child that says why on its standard output."""
OTHER_BOXES: Final = 3
"""Exit code of a child that finds other boxes on the golden frames than the cloud, and says how."""
_LONGEST_REASON: Final = 300


class OtherBoxes(InvalidInput):
    """A release finds other boxes on its golden frames, on this device, than where it was made."""


async def try_release(path: Path, frame: Image | None, *, threads: int, time_s: float, memory_mib: int) -> None:
    """Load a model, let it detect twice, and look at its golden frames, in a process of its own.

    Args:
        path: The model file.
        frame: The last live frame; None for a grey one.
        threads: How many threads ONNX Runtime uses.
        time_s: How long it may take, by the clock.
        memory_mib: How much address space it may use, in MiB.

    Raises:
        OtherBoxes: It finds other boxes on its golden frames than where it was made.
        InvalidInput: It is no detector, fails, finds what cannot be, takes too long or too much memory, or crashes.
    """
    given = io.BytesIO()
    if frame is not None:
        np.save(given, frame)
    arguments = (str(path.resolve()), str(threads), str(memory_mib))
    what = ("the model", "export it again")
    await run_in_child("edge_node.trial", arguments, given.getvalue(), time_s=time_s, what=what)


async def run_in_child(
    module: str, arguments: Sequence[str], given: bytes = b"", *, time_s: float, what: tuple[str, str]
) -> str:
    """Run a module in a process of its own, which may crash or hang without harm to this one.

    Args:
        module: What is run.
        arguments: Its command line.
        given: Its standard input.
        time_s: How long it may take, by the clock.
        what: What is tried, and what to do where that is no good, for the sentence of the error.

    Returns:
        Its standard output.

    Raises:
        InvalidInput: It refuses, takes too long, or crashes.
    """
    tried, remedy = what
    # In an empty folder, so that nothing beside a file can become a part of it.
    with tempfile.TemporaryDirectory() as folder:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "diredi.child_process", module, *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                cwd=folder, env=_environment(),
            )  # fmt: skip
        except OSError as error:
            raise InvalidInput(f"{tried} could not be tried ({error.strerror}): {remedy}") from None
        try:
            said, _ = await asyncio.wait_for(process.communicate(given), time_s)
        except TimeoutError:
            raise InvalidInput(f"{tried} gave no answer within {time_s:g} s: {remedy}") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode == REFUSED and said:
        raise InvalidInput(said.decode(errors="replace").strip()[:_LONGEST_REASON])
    if process.returncode == OTHER_BOXES and said:
        raise OtherBoxes(said.decode(errors="replace").strip()[:_LONGEST_REASON])
    if process.returncode:
        raise InvalidInput(f"{tried} ended the process that tried it ({_name(process.returncode)}): {remedy}")
    return said.decode(errors="replace")


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def limit_memory(mib: int) -> None:
    """Limit the address space of this process, and let no crash of it write its memory to a file."""
    resource.setrlimit(resource.RLIMIT_AS, (mib * 2**20, mib * 2**20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    """Try the file that the command line names; the exit code."""
    path, threads, memory_mib = sys.argv[1:]
    given = sys.stdin.buffer.read()
    limit_memory(int(memory_mib))
    try:
        detector = OnnxPredictor(Path(path), int(threads))
        warm_up(detector, np.load(io.BytesIO(given)) if given else None)
        if difference := explain_golden_difference(detector):
            sys.stdout.write(f"on the golden frames of the release this device finds other boxes: {difference}")
            return OTHER_BOXES
    except DirediError as error:
        sys.stdout.write(str(error))
        return REFUSED
    except MemoryError:
        sys.stdout.write(f"the model needs more than {memory_mib} MiB: export it again")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
