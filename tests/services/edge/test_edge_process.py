"""`python -m edge_node` as a process: how it starts, refuses to start, stops, and comes back after a kill."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import sys
import zlib
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from edge_doubles import EdgeCloud, Node, config_of, downloaded

from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput
from diredi.rpc import convert
from diredi.trust import ca
from edge_node.config import EdgeConfig
from edge_node.release_trust import SignedMetadata
from edge_node.update_states import IN_PROGRESS, InstallableRelease, State, UpdateRecord
from tests.support.pki import HOSTS, Pki
from tests.support.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_processes")]

Students = list[tuple[Path, DetectorSpec]]
ROOT = Path(__file__).parents[3]


def environment_of(config: EdgeConfig) -> dict[str, str]:
    values = {name: value for name, value in config.model_dump(mode="json").items() if value is not None}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return {**os.environ, **{f"DIREDI_EDGE_{name.upper()}": text for name, text in texts.items()}}


async def start(config: EdgeConfig, *flags: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_node", *flags, cwd=ROOT, env=environment_of(config), stderr=PIPE
    )


async def said_ready(process: Process) -> str:
    """The address of the line that says that the node is ready; other lines are passed over."""
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_S):
        async for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "service_started":
                return str(event["address"])
    raise AssertionError("it ended before it was ready")


@asynccontextmanager
async def node_process(config: EdgeConfig, pki: Pki) -> AsyncIterator[tuple[Process, Node]]:
    process = await start(config)
    node = None
    try:
        node = Node(await said_ready(process), pki.credentials("device", "camera-1", "site-1"))
        yield process, node
    finally:
        if node is not None:
            await node.channel.close()
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_ready_with_its_real_port_and_stops_when_told_to(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, number: signal.Signals
) -> None:
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames, listen="127.0.0.1:0")
    async with node_process(config, pki) as (process, node):
        await node.until(lambda status: status.frames > 0)
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


async def test_killed_in_the_middle_of_a_download_it_comes_back_and_finishes(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    async with node_process(config, pki) as (process, node):
        await node.until(lambda status: status.release_version == 1)
        cloud.blobs.stall_after, served = 1, cloud.blobs.served_bytes
        release = await cloud.fleet.publish(2, *students[1])
        await until(lambda: downloaded(config.state_dir) == cloud.blobs.served_bytes - served > 0)
        process.kill()
        await process.wait()
    cloud.blobs.stall_after = None
    async with node_process(config, pki) as (_, node):
        assert (await node.until(lambda status: status.frames > 0)).release_version >= 1
        await node.until(lambda status: status.release_version == 2)
    assert cloud.blobs.served_bytes == served + release.onnx.bytes, "no byte of it was fetched twice"


@pytest.mark.parametrize("state", [*IN_PROGRESS, State.REPORTING, State.FAILED])
async def test_what_a_kill_in_each_state_leaves_behind_is_finished_by_the_next_start(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, state: State
) -> None:
    first = await cloud.fleet.publish(1, *students[0])
    config = config_of(tmp_path / "node", pki, cloud.address, frames)
    async with node_process(config, pki) as (process, node):
        await node.until(lambda _: len(cloud.fleet.reports) == 1 and stored(config).state is State.IDLE)
        process.kill()
    second = await cloud.fleet.publish(2, *students[1])
    target = left_in(config.state_dir, state, second)
    trust = SignedMetadata(config.state_dir / "trust", config.identity, config.site, cloud.fleet.repository.read)
    await trust.prove(target)
    await cloud.stop()
    async with node_process(config, pki) as (_, node):
        status = await node.until(lambda status: status.frames > 0)
        assert status.release_version == (2 if state is State.REPORTING else 1), "it runs at once, without the cloud"
        await cloud.start()
        if state is State.FAILED:
            await cloud.fleet.name(first)
        version = 1 if state is State.FAILED else 2
        status = await node.until(lambda status: status.release_version == version and len(cloud.fleet.reports) == 2)
        assert status.dropped_frames == 0
    assert cloud.fleet.reports[1][:2] == (2, "FAILED" if state is State.FAILED else "INSTALLED")


def stored(config: EdgeConfig) -> UpdateRecord:
    return UpdateRecord.model_validate_json((config.state_dir / "update.json").read_bytes())


def left_in(state_dir: Path, state: State, release: convert.Release) -> InstallableRelease:
    """The record and files as they are on disk when the process dies right after storing `state`."""
    file = state_dir / "update.json"
    record = UpdateRecord.model_validate_json(file.read_bytes())
    assert record.installed is not None
    digest = release.onnx.digest
    told = {"version": 2, "digest": digest, "bytes": release.onnx.bytes, "target": release.target}
    target = record.installed.model_copy(update=told)
    record = record.begin(target)
    for step in (*IN_PROGRESS[1:],):
        if record.state is not state and state not in (State.FAILED,):
            record = record.advance(step)
    if state is State.REPORTING:
        record = record.finish_swap()
    if state is State.FAILED:
        record = record.fail("warming: of a test", lasting=True)
    assert record.state is state
    if state is not State.DOWNLOADING:
        blob = next((state_dir.parent / "cloud" / "blobs").rglob(digest.removeprefix("sha256:")[2:]))
        (state_dir / "releases" / target.file_name).write_bytes(blob.read_bytes())
    file.write_text(record.model_dump_json())
    return target


async def refused(config: EdgeConfig, *flags: str) -> tuple[int, str]:
    """Exit code and the last line of standard error."""
    process = await start(config, *flags)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert b"Traceback" not in err
    assert process.returncode is not None
    return process.returncode, err.decode().strip().splitlines()[-1]


async def test_a_port_in_use_is_one_sentence_and_exit_code_6(tmp_path: Path, pki: Pki, frames: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, err = await refused(config_of(tmp_path / "node", pki, "localhost:1", frames, listen=listen))
    assert code == 6
    assert err.startswith("edge_node: ")
    assert listen in err


async def test_a_missing_certificate_is_one_sentence_and_exit_code_2(tmp_path: Path, pki: Pki, frames: str) -> None:
    code, err = await refused(config_of(tmp_path / "node", pki, "localhost:1", frames, identity=tmp_path / "none"))
    assert code == 2
    assert "ca.pem" in err
    assert "diredi pki issue" in err


def spoil(identity: Path, pki: Pki, wrong: str) -> None:
    """The folder as it is after years in a drawer, with a clock that begins in 1970, or after somebody's mistake."""
    now, authority = datetime.now(UTC), pki.folder / "ca"
    device = ("device", "camera-1", HOSTS, identity, "site-1")
    match wrong:
        case "expired":
            ca.issue(authority, *device, now=now - timedelta(days=11), lifetime=timedelta(days=10))
        case "clock 2 h behind":
            ca.issue(authority, *device, now=now + timedelta(hours=2))
        case "clock in 1970":
            ca.issue(authority, *device, now=now + timedelta(days=56 * 365))
        case "of another":
            ca.issue(authority, "device", "camera-2", HOSTS, identity, "site-1")
        case "missing":
            shutil.rmtree(identity)
        case "cut":
            (identity / "cert.pem").write_bytes((identity / "cert.pem").read_bytes()[:100])


SAYS = {
    "expired": "expired on",
    "clock 2 h behind": "check this clock",
    "clock in 1970": "check this clock",
    "of another": "is for device/site-1/camera-2",
    "missing": "cannot be read",
    "cut": "is not a certificate",
}


@pytest.mark.parametrize("wrong", SAYS)
async def test_a_camera_with_a_wrong_clock_or_certificate_detects_says_so_and_connects_when_it_is_put_right(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students, wrong: str
) -> None:
    identity = Path(shutil.copytree(pki.issue("device", "camera-1", "site-1"), tmp_path / "identity"))
    config = config_of(tmp_path / "node", pki, cloud.address, frames, identity=identity)
    await cloud.fleet.publish(1, *students[0])
    async with node_process(config, pki) as (_, node):
        await node.until(lambda status: status.frames > 0 and bool(cloud.fleet.reports))
    spoil(identity, pki, wrong)
    process = await start(config)
    said: list[dict[str, Any]] = []
    reading = asyncio.create_task(read_log(process, said))
    node = Node(config.listen, pki.credentials("device", "camera-1", "site-1"))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not any(line["event"] == "detection_started" and line["release"] == 1 for line in said):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        problem = next(line["problem"] for line in said if line["event"] == "identity_rejected")
        assert SAYS[wrong] in problem
        assert str(identity) in problem
        ca.issue(pki.folder / "ca", "device", "camera-1", HOSTS, identity, "site-1")
        status = await node.until(lambda status: status.cloud_online and not status.last_error)
        assert (status.release_version, status.dropped_frames) == (1, 0)
        await cloud.fleet.publish(2, *students[1])
        await node.until(lambda status: status.release_version == 2)
        assert any(line["event"] == "identity_accepted" for line in said)
    finally:
        await node.channel.close()
        process.kill()
        await process.wait()
        await reading


async def read_log(process: Process, lines: list[dict[str, Any]]) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        if line.startswith(b"{"):
            lines.append(json.loads(line))


async def test_a_new_camera_waits_until_its_clock_is_right(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    identity = tmp_path / "identity"
    spoil(identity, pki, "clock in 1970")
    await cloud.fleet.publish(1, *students[0])
    process = await start(config_of(tmp_path / "node", pki, cloud.address, frames, identity=identity))
    said: list[dict[str, Any]] = []
    reading = asyncio.create_task(read_log(process, said))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not any(line["event"] == "service_started" for line in said):
                assert process.returncode is None
                await asyncio.sleep(0.05)
            assert any("check this clock" in line.get("problem", "") for line in said)
            ca.issue(pki.folder / "ca", "device", "camera-1", HOSTS, identity, "site-1")
            while not cloud.fleet.reports:
                await asyncio.sleep(0.05)
    finally:
        process.kill()
        await process.wait()
        await reading
    assert cloud.fleet.reports == [(1, "INSTALLED", "")]


async def test_a_source_that_is_written_wrong_is_one_sentence_and_exit_code_2(tmp_path: Path, pki: Pki) -> None:
    config = config_of(tmp_path / "node", pki, "localhost:1", "scenes:site-1")
    code, err = await refused(config, "--source", "rtsp://admin:hunter2@10.0.0.7/stream1")
    assert code == 2
    assert "holds a password" in err
    assert "hunter2" not in err
    code, err = await refused(config, "--source", "rtsp://10.0.0.7/stream1#transprt=udp")
    assert code == 2
    assert "transprt does not exist" in err


async def test_an_unknown_flag_is_refused_without_a_traceback(tmp_path: Path, pki: Pki, frames: str) -> None:
    config = config_of(tmp_path / "node", pki, "localhost:1", frames)
    code, err = await refused(config, "--confidence", "7")
    assert code == 2
    assert "confidence" in err


def test_the_node_runs_without_torch() -> None:
    import subprocess

    program = "import sys; sys.modules['torch'] = None; import edge_node.node, edge_node.__main__"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


async def test_a_small_file_that_claims_to_be_a_huge_image_is_refused(
    tmp_path: Path, pki: Pki, cloud: EdgeCloud, frames: str, students: Students
) -> None:
    await cloud.fleet.publish(1, *students[0])
    async with node_process(config_of(tmp_path / "node", pki, cloud.address, frames), pki) as (_, node):
        await node.until(lambda status: status.release_version == 1)
        with pytest.raises(InvalidInput):
            await node.detect(grey_png(20_000, 10_000))


def grey_png(width: int, height: int) -> bytes:
    """All black, and a thousandth of the size of its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(height * (width + 1)), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
