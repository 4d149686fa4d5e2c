"""No program of ours lets a library tell its vendor anything, however little the environment says against it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from edge_doubles import EdgeCloud, config_of

from diredi.detectors.spec import DetectorSpec
from tests.support.host_trace import HostTrace
from tests.support.pki import Pki
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

Students = list[tuple[Path, DetectorSpec]]
ROOT = Path(__file__).parents[3]
SILENCED_BY = (
    *("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "RAY_USAGE_STATS_ENABLED", "YOLO_OFFLINE"),
    *("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "BUILDKITE"),
)
"""What this process has been given and would hand on; ONNX Runtime is silent in continuous integration."""
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY")


def untold(**more: str) -> dict[str, str]:
    """An environment in which nobody has switched any telemetry off."""
    return {name: value for name, value in os.environ.items() if name not in SILENCED_BY + PROXIES} | more


class WayOut:
    """A proxy that lets nobody through and remembers who was to be reached; and an empty home folder."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.wanted: list[str] = []
        self.knocked = asyncio.Event()
        self.url = ""

    def environment(self, **more: str) -> dict[str, str]:
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), self.url)
        return untold(HOME=str(self.home), XDG_CACHE_HOME=str(self.home / ".cache"), **proxies, **more)

    def kept(self) -> list[str]:
        """Whatever a vendor's telemetry has written into the home folder."""
        return [str(path) for path in self.home.rglob("*") if "microsoft" in path.name.lower()]

    async def refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            self.wanted.append((await reader.readline()).decode(errors="replace").strip())
            self.knocked.set()
            writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()


@asynccontextmanager
async def way_out(home: Path) -> AsyncIterator[WayOut]:
    out = WayOut(home)
    async with await asyncio.start_server(out.refuse, "127.0.0.1", 0) as server:
        out.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield out


async def begun(*command: str, environment: dict[str, str]) -> Process:
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE)


@asynccontextmanager
async def lasting(*command: str, environment: dict[str, str]) -> AsyncIterator[Process]:
    process = await begun(*command, environment=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(*command: str, environment: dict[str, str]) -> None:
    process = await begun(*command, environment=environment)
    said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, said


def data_set(folder: Path) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        cv2.imwrite(str(folder / "images" / split / "a.png"), np.full((64, 64, 3), 90, np.uint8))
        (folder / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    path = folder / "data.yaml"
    path.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n  0: car\n  1: person\n")
    return path


USES_THE_LIBRARY_ALONE = """
import sys, threading, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
threading.Event().wait()
"""


async def test_edge_node_job_and_command_ask_for_no_vendors_host_and_keep_no_device_id(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    onnx, spec = students[0]
    await cloud.fleet.publish(1, onnx, spec)
    runtime = "openvino" if find_spec("openvino") else "onnxruntime"
    config = config_of(
        tmp_path / "node", pki, cloud.address, frames, runtime=runtime, measure_s=0.1, trial_s=PATIENCE_S
    )
    settings = {
        f"DIREDI_EDGE_{name.upper()}": str(value)
        for name, value in config.model_dump(mode="json").items()
        if value is not None
    }
    data, job = data_set(tmp_path / "set"), tmp_path / "job"
    job.mkdir()
    asked = {"data": str(data), "onnx": str(onnx), "labels": spec.labels.model_dump(mode="json")}
    (job / "spec.json").write_text(json.dumps({"module": "diredi.knowledge.jobs.validate", "spec": asked}))
    python, trace = sys.executable, HostTrace(tmp_path / "trace")
    async with (
        way_out(tmp_path / "ours") as ours,
        way_out(tmp_path / "theirs") as theirs,
        lasting(*trace.prefix, python, "-m", "edge_node", environment=ours.environment(**settings)) as node,
    ):
        async with asyncio.timeout(PATIENCE_S):
            while not any(beat.runtime == runtime and beat.release_version for beat in cloud.fleet.heartbeats):
                await asyncio.sleep(0.05)
        run_job = ("-m", "diredi.jobs", "diredi.knowledge.jobs.validate", str(job))
        await ended(python, *run_job, environment=ours.environment())
        command = ("-m", "diredi_cli", "eval", str(onnx), "--data", str(data))
        await ended(python, *command, environment=ours.environment())
        # The library by itself, begun last: once it has called home, the others would have done so too.
        alone = (python, "-c", USES_THE_LIBRARY_ALONE, str(onnx))
        async with lasting(*alone, environment=theirs.environment()):
            await asyncio.wait_for(theirs.knocked.wait(), PATIENCE_S)
        assert theirs.kept(), "or this test would not see it"
        assert (ours.wanted, ours.kept()) == ([], [])
        node.kill()
        reached = await trace.reached(node.pid)
        assert {port for _, port in reached} == {cloud.port}, "somebody else than the configured cloud was called"
        assert {host for host, _ in reached} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("module", ["diredi.detectors.ultralytics_network", "diredi.detectors.libreyolo_family"])
def test_a_detector_family_looks_up_no_host_when_it_is_loaded(tmp_path: Path, module: str) -> None:
    pytest.importorskip(module)
    program = (
        "import sys; asked = []\n"
        "sys.addaudithook(lambda event, args: asked.append(args) if event in "
        "('socket.getaddrinfo', 'socket.gethostbyname', 'socket.connect') else None)\n"
        f"import {module}\n"
        "sys.exit(str(asked) if asked else 0)"
    )
    environment = untold(HOME=str(tmp_path), YOLO_CONFIG_DIR=str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode()


def test_ray_reports_no_use() -> None:
    pytest.importorskip("ray")
    program = "import sys, diredi\nfrom ray._common.usage import usage_lib\nsys.exit(usage_lib.usage_stats_enabled())"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=untold(), check=False).returncode == 0
