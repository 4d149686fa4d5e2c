"""Programs that tests need and that Debian has: installed where that is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest
from filelock import FileLock


def need(is_there: Callable[[], bool], *packages: str) -> None:
    """Makes sure of something that packages of Debian bring; without it the test is skipped, and fails in CI."""
    if not is_there():
        with FileLock("/tmp/diredi-apt.lock"):  # that of deploy/docker-engine.sh
            if not is_there() and os.getuid() == 0 and shutil.which("apt-get"):
                environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
                for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
                    subprocess.run(
                        ["apt-get", "-qq", *command], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                        check=False,
                    )  # fmt: skip
    if not is_there():
        missing = f"something is not installed: apt-get install {' '.join(packages)}"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
