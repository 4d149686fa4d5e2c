"""How many processor cores this process may use: often fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def usable_cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Count the cores that this process may use at once.

    A container on a board with 64 threads may be allowed two of them, by its affinity or by a quota of its control
    group. A pool of 64 threads would then be slower than one of two.

    Args:
        groups: Where the control groups are mounted.
        own: The file that names those of this process.

    Returns:
        The number of cores in the affinity of this process, or the quota of its control groups where that is less,
        rounded up; at least 1.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers:  # version 2: one hierarchy
                cores = min(cores, _quota(groups, name, _version_2))
            elif "cpu" in controllers.split(","):
                cores = min(cores, _quota(groups / "cpu", name, _version_1))
    return max(1, math.ceil(cores))


def _quota(root: Path, name: str, read: Callable[[Path], float]) -> float:
    """Return the least quota, in cores, of a control group and those around it."""
    group = root / name.lstrip("/")
    return min(read(folder) for folder in (group, *group.parents) if folder == root or root in folder.parents)


def _version_2(folder: Path) -> float:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return math.inf


def _version_1(folder: Path) -> float:
    with suppress(OSError, ValueError):
        quota, period = (int((folder / f"cpu.cfs_{part}_us").read_text()) for part in ("quota", "period"))
        return quota / period if quota > 0 else math.inf
    return math.inf
