"""The command line in processes of its own, and one small demo that all tests of this folder look at."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from diredi.cli.demo.folder import Folder

sys.path.insert(0, str(Path(__file__).parent))  # for the recorder beside this file

from recorder import Recorder

# Models that learn next to nothing, in a minute: what is tested is the trip, not its profit.
SMALL = {
    "presumed_images": [48, 16],
    "site_images": [24, 12],
    "cloud": {
        "image_size": 64,
        "tutor": "yolo11-w0.125",
        "student": "yolo11-w0.0625",
        "max_harm": 1.0,
        "bootstrap": {"coreset_images": 12, "tutor": {"epochs": 1}, "student": {"epochs": 1}},
        "recipe": {"coreset_images": 12, "tutor": {"epochs": 1}, "student": {"epochs": 1}, "redistil": {"epochs": 1}},
    },
}


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one sentence of an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in self.err, self.err
        assert self.err.strip().splitlines()[-1] == lines[0]
        return lines[0]


Diredi = Callable[..., Said]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("DIREDI_")}


@pytest.fixture(scope="session")
def diredi() -> Diredi:
    """diredi("cycle", "list", "--json") in a process of its own."""

    def run(*arguments: str | Path, timeout_s: float = 120) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "diredi.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment(),
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def small_demo(path: Path, **changes: dict[str, Any]) -> Path:
    """The `--config` of a small demo; `changes` go into its cloud, site and edge."""
    values = {**SMALL, **{name: {**SMALL.get(name, {}), **change} for name, change in changes.items()}}  # type: ignore[dict-item]
    path.write_text(yaml.safe_dump(values))
    return path


def processes_of(out: Path) -> list[psutil.Process]:
    """Every process on this machine that has a demo's folder in its command line."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if any(str(out) in word for word in process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@dataclass(frozen=True)
class Demo:
    """A demo that went well and still runs, with all that its site sent to the cloud."""

    folder: Folder
    said: Said
    sent: Recorder

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads(self.folder.report.read_text()))

    def at(self, identity: str = "operator") -> tuple[str, ...]:
        """Options that make a command talk to this demo's cloud."""
        return ("--cloud", self.folder.addresses()["cloud"], "--identity", str(self.folder.identity(identity)))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, diredi: Diredi) -> Iterator[Demo]:
    """One small demo, left running; its user domain and its edge nodes reach the cloud through a recorder."""
    root = tmp_path_factory.mktemp("demo")
    folder = Folder(root / "out")
    cloud = f"127.0.0.1:{free_port()}"
    with Recorder(cloud, folder.identity) as recorder:
        site_side = {"cloud": recorder.address}
        config = small_demo(root / "small.yaml", cloud={"listen": cloud}, site=site_side, edge=site_side)
        said = diredi("demo", "--out", folder.out, "--config", config, "--keep", timeout_s=900)
        try:
            assert said.code == 0, said.err
            yield Demo(folder, said, recorder)
        finally:
            diredi("demo", "--out", folder.out, "--stop")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command without waiting for it; whatever is left of it at the end is ended."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "diredi.cli", *map(str, arguments)],
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
