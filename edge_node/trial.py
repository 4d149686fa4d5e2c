"""Tries a release in a process of its own, with limits of time and memory, before it may run in the node.

    python -m edge_node.trial FILE THREADS MEMORY_MIB FRAME

FRAME is a .npy file with a live frame, or empty. Exit code 0: the file is a detector and gives sensible results. Exit
code 1 with a sentence on standard output: it does not. Anything else: the process died of it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Image
from diredi.errors import DirediError, InvalidInput
from edge_node.active_model import warm_up

_REFUSED: Final = 1
_LONGEST_REASON: Final = 300


async def try_release(path: Path, frame: Image | None, *, threads: int, time_s: float, memory_mib: int) -> None:
    """Load a model and let it detect twice, in a process of its own.

    Args:
        path: The model file.
        frame: The last live frame; None for a grey one.
        threads: How many threads ONNX Runtime uses.
        time_s: How long it may take, by the clock.
        memory_mib: How much address space it may use, in MiB.

    Raises:
        InvalidInput: It is no detector, fails, finds what cannot be, takes too long or too much memory, or crashes.
    """
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder) / "frame.npy"
        if frame is not None:
            np.save(shown, frame)
        # In an empty folder, so that nothing beside the file can become a part of it.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "diredi.child_process", "edge_node.trial",
            str(path.resolve()), str(threads), str(memory_mib), str(shown) if frame is not None else "",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=folder, env=_environment(),
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(process.communicate(), time_s)
        except TimeoutError:
            raise InvalidInput(f"the model gave no answer within {time_s:g} s: export it again") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode == _REFUSED:
        raise InvalidInput(said.decode(errors="replace").strip()[:_LONGEST_REASON])
    if process.returncode:
        raise InvalidInput(f"the model ended the process that tried it ({_name(process.returncode)}): export it again")


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> int:
    """Try the file that the command line names; the exit code."""
    path, threads, memory_mib, frame = sys.argv[1:]
    limit = int(memory_mib) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        warm_up(OnnxPredictor(Path(path), int(threads)), np.load(frame) if frame else None)
    except DirediError as error:
        sys.stdout.write(str(error))
        return _REFUSED
    except MemoryError:
        sys.stdout.write(f"the model needs more than {memory_mib} MiB: export it again")
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
