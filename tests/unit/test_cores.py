"""How many cores a process may use is a matter of its affinity and of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diredi.cores import usable_cores

ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({"box/cpu.max": "50000 100000\n"}, "0::/box\n", 1),
        ({"cpu.max": "100000 100000\n", "box/cpu.max": "max 100000\n"}, "0::/box\n", 1),
        ({"box/cpu.max": "max 100000\n"}, "0::/box\n", ALLOWED),
        ({"box/cpu.max": "6400000 100000\n"}, "0::/box\n", ALLOWED),
        ({"cpu/box/cpu.cfs_quota_us": "100000", "cpu/box/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/box\n", 1),
        ({"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/box\n", ALLOWED),
        ({"box/cpu.max": "what is this"}, "0::/box\nand this\n", ALLOWED),
        ({}, "0::/elsewhere\n", ALLOWED),
    ],
)
def test_a_quota_counts_where_it_is_less_than_the_affinity(
    tmp_path: Path, files: dict[str, str], own: str, cores: int
) -> None:
    for name, text in files.items():
        written(tmp_path / "groups" / name, text)
    assert usable_cores(tmp_path / "groups", written(tmp_path / "own", own)) == cores


def test_a_machine_without_control_groups_has_the_cores_of_the_affinity(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "no-such-file") == ALLOWED
