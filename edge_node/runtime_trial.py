"""Measures one runtime beside ONNX Runtime on frames of the node, in a process of its own.

    python -m edge_node.runtime_trial devices PACKAGE
    python -m edge_node.runtime_trial measure FILE RUNTIME THREADS MEMORY_MIB CONFIDENCE SECONDS

The first prints the names of the runtimes that the package has here, one a line. For the second, standard input is an
.npz file with frames, and standard output a `Measurement` as JSON. Exit code 1 with a sentence on standard output: it
cannot be used. Anything else: the process died of it.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from diredi.detectors.agreement import explain_disagreement
from diredi.detectors.onnx import OnnxPredictor
from diredi.detectors.predictor import Image, Predictor
from diredi.detectors.runtimes import REFERENCE, load_runtime
from diredi.errors import DirediError
from edge_node.trial import REFUSED, limit_memory, run_in_child

LEAST_PAIRS: Final = 5
"""Each runtime detects at least so often, however slow the board is."""
_LOW: Final = 0.001


class Measurement(BaseModel):
    """How fast a runtime is on this board beside ONNX Runtime, on the same frames, by turns."""

    model_config = ConfigDict(frozen=True)

    runtime: str
    ms: float = 0.0
    """Median of a frame, from the image to the boxes, in milliseconds."""
    reference_ms: float = 0.0
    """The same of ONNX Runtime."""
    speedup: float = 0.0
    """Median of ONNX Runtime's time over this one's, of two frames that were detected one after the other."""
    problem: str = ""
    """Why it cannot be used; empty where it can."""


async def find_runtimes(package: str, *, time_s: float) -> list[str]:
    """Return the names of the runtimes that a package has on this machine.

    Args:
        package: A package that is installed.
        time_s: How long it may take, by the clock.

    Raises:
        InvalidInput: It cannot be loaded, or crashes.
    """
    said = await run_in_child("edge_node.runtime_trial", ("devices", package), time_s=time_s, what=_what(package))
    return said.splitlines()


async def measure_runtime(
    runtime: str, path: Path, frames: Sequence[Image], *, threads: int, confidence: float, measure_s: float,
    time_s: float, memory_mib: int,
) -> Measurement:  # fmt: skip
    """Measure a runtime beside ONNX Runtime.

    Args:
        runtime: What is measured.
        path: The model file.
        frames: Frames of this node's cameras; one or more.
        threads: How many threads each of the two uses.
        confidence: Boxes with a lower score are not reported; 0 to 1.
        measure_s: How long to measure, by the clock.
        time_s: How long all of it may take, by the clock.
        memory_mib: How much address space it may use, in MiB, where it is the processor that calculates.

    Returns:
        The measurement. `problem` says what was wrong: it crashed, was refused, or found other boxes.
    """
    given = io.BytesIO()
    np.savez(given, *frames)
    arguments = [str(path.resolve()), runtime, threads, memory_mib, confidence, measure_s]
    try:
        said = await run_in_child(
            "edge_node.runtime_trial", ["measure", *map(str, arguments)], given.getvalue(), time_s=time_s,
            what=_what(runtime),
        )  # fmt: skip
    except DirediError as error:
        return Measurement(runtime=runtime, problem=str(error))
    return Measurement.model_validate_json(said)


def _what(runtime: str) -> tuple[str, str]:
    return runtime, f"{REFERENCE} detects"


def compare(
    runtime: str, path: Path, frames: Sequence[Image], threads: int, confidence: float, seconds: float
) -> Measurement:
    """Measure in this process."""
    reference, other = OnnxPredictor(path, threads), OnnxPredictor(path, threads, runtime)
    theirs, mine = ([model.predict([frame], _LOW)[0] for frame in frames] for model in (reference, other))
    if said := explain_disagreement(theirs, mine, confidence):
        return Measurement(runtime=runtime, problem=f"{runtime} does not agree with {REFERENCE}: {said}")
    pairs: list[tuple[float, float]] = []
    end = time.monotonic() + seconds
    for number, frame in enumerate(cycle(frames)):
        if time.monotonic() >= end and len(pairs) >= LEAST_PAIRS:
            break
        order = (reference, other) if number % 2 else (other, reference)
        taken = {id(model): _time_s(model, frame, confidence) for model in order}
        pairs.append((taken[id(reference)], taken[id(other)]))
    return Measurement(
        runtime=runtime,
        ms=1000 * statistics.median(taken_s for _, taken_s in pairs),
        reference_ms=1000 * statistics.median(reference_s for reference_s, _ in pairs),
        speedup=statistics.median(reference_s / taken_s for reference_s, taken_s in pairs),
    )


def _time_s(model: Predictor, frame: Image, confidence: float) -> float:
    started = time.perf_counter()
    model.predict([frame], confidence)
    return time.perf_counter() - started


def main() -> int:
    """Do what the command line says; the exit code."""
    # What a library prints goes elsewhere: standard output is for the answer.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with output:
        try:
            output.write(_answer(sys.argv[1:]))
            return 0
        except DirediError as error:
            output.write(str(error))
        except MemoryError:
            output.write(f"{sys.argv[3]} needs more than {sys.argv[5]} MiB: {REFERENCE} detects")
        except Exception as error:  # whatever a library does here is a reason to do without it
            tried = sys.argv[2 if sys.argv[1] == "devices" else 3]
            output.write(f"{tried} fails ({type(error).__name__}: {error}): {REFERENCE} detects")
    return REFUSED


def _answer(arguments: Sequence[str]) -> str:
    if arguments[0] == "devices":
        package = arguments[1]
        return "\n".join([package, *(f"{package}:{device}" for device in load_runtime(package).devices())])
    _, path, runtime, threads, memory_mib, confidence, seconds = arguments
    with np.load(io.BytesIO(sys.stdin.buffer.read())) as given:
        frames = [given[name] for name in given.files]
    if ":" not in runtime:  # the driver of another processor maps its memory, too
        limit_memory(int(memory_mib))
    measured = compare(runtime, Path(path), frames, int(threads), float(confidence), float(seconds))
    return measured.model_dump_json()


if __name__ == "__main__":
    sys.exit(main())
