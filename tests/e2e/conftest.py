"""The command line, and one small demo that all tests of this folder look at."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from diredi_cli import main
from diredi_demo.workspace import Workspace
from tests.e2e.demo_world import Demo, Diredi, Said, environment, small_demo
from tests.e2e.recorder import Recorder
from tests.support.cycle_page import tracing
from tests.support.net import free_port


@pytest.fixture(scope="session")
def diredi() -> Diredi:
    """diredi("cycle", "list", "--json"), as the shell would run it, but in this process: what is imported is there."""

    def run(*arguments: str | Path) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, environment(), clear=True), redirect_stdout(out), redirect_stderr(err):
            code = main.run([str(argument) for argument in arguments])
        return Said(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def program() -> Diredi:
    """The same in a process of its own: for what starts processes, serves, or is measured.

    With `calls` the process and its children log there what the page on the code of a cycle names.
    """

    def run(*arguments: str | Path, timeout_s: float = 120, calls: Path | None = None) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "diredi_cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment() | ({} if calls is None else tracing(calls)),
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory, program: Diredi) -> Iterator[Demo]:
    """One small demo, left running; its user domain and its edge nodes reach the cloud through a recorder."""
    root = tmp_path_factory.mktemp("demo")
    folder, calls = Workspace(root / "out"), root / "calls"
    cloud = f"127.0.0.1:{free_port()}"
    with Recorder(cloud, folder.identity, folder.token("")) as recorder:
        site_side = {"cloud": recorder.address}
        config = small_demo(root / "small.yaml", cloud={"listen": cloud}, site=site_side, edge=site_side)
        said = program("demo", "--out", folder.out, "--config", config, "--keep", timeout_s=900, calls=calls)
        try:
            assert said.code == 0, said.err
            yield Demo(folder, said, recorder, calls)
        finally:
            program("demo", "--out", folder.out, "--stop")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command without waiting for it; whatever is left of it at the end is ended."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "diredi_cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
