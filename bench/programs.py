"""Other systems' programs, and how whole programs are measured: seconds, memory and the processor's seconds of all of
their processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from environment import ROOT
from report import HERE

sys.path.append(str(ROOT))
from deploy.setup import Pip, constraints, torch_requirement

FLOWER = ROOT / "runs" / "flower-venv"
FLOWER_PINS = HERE / "simulators" / "flower-requirements.txt"
PATIENCE_S = 900
"""With one program. Flower's waits for ever when its Ray has not started within 30 s, as where cores are busy."""


def flower_python() -> str:
    """Of an environment with the versions that are pinned here; they never meet ours."""
    pins, stamp = FLOWER_PINS, FLOWER / "made-from.txt"
    if not stamp.exists() or stamp.read_text() != pins.read_text():
        print(f"making {FLOWER}: minutes", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FLOWER)], check=True)
        pip = Pip(FLOWER)
        pip.run("install", "--no-deps", *torch_requirement(pip, constraints()["torch"]), "-r", str(pins))
        stamp.write_text(pins.read_text())
    return str(FLOWER / "bin" / "python")


@dataclass(frozen=True)
class ProgramCosts:
    began: float
    """As `time.time` has it."""
    mib: float
    """The most that all of its processes had at once; shared pages count once."""
    cpu_s: float
    """Of all of its processes, from start to end."""


def run_program(command: Sequence[str], folder: Path, **settings: str) -> ProgramCosts:
    """A program to its end, with `settings` in its environment and what it says in FOLDER/log.txt; no two at once.

    Raises RuntimeError when it fails.
    """
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", **settings}
    with one_at_a_time(), (folder / "log.txt").open("w") as log:
        began = time.time()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        mib, spent = watch(process)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: see {folder / 'log.txt'}")
    return ProgramCosts(began, mib, spent)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Seeds are worked on side by side, which seconds of the clock would not bear."""
    with (ROOT / "runs" / "programs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def watch(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Waits for the process: the most MiB that it and all its descendants had at once, and their processor seconds, as
    seen five times a second. One that hangs is ended.
    """
    ended, peak, spent = threading.Event(), 0.0, dict[int, float]()

    def wait() -> None:
        process.wait()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    began = time.monotonic()
    while not ended.wait(0.2):
        looks = [(one, sample_process(one)) for one in family(process.pid)]
        peak = max(peak, sum(mib for _, (mib, _) in looks))
        spent |= {one.pid: max(seconds, spent.get(one.pid, 0.0)) for one, (_, seconds) in looks}
        if time.monotonic() - began > PATIENCE_S:
            for one, _ in looks:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
    return peak, sum(spent.values())


def family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def sample_process(process: psutil.Process) -> tuple[float, float]:
    """MiB of a process, with its share of what it shares, and its processor seconds; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        times = process.cpu_times()
    except (OSError, psutil.NoSuchProcess):
        return 0.0, 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024, times.user + times.system
