"""`python -m user_domain` as a process: how it starts, refuses to start, stops, and comes back after a kill."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from site_doubles import Models, SiteCloud, config_of, write_data_set

from diredi.trust import ca
from tests.support.host_trace import HostTrace
from tests.support.net import free_port
from tests.support.pki import HOSTS, Pki
from tests.support.waiting import PATIENCE_S, until
from user_domain.config import UserDomainConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_processes")]

ROOT = Path(__file__).parents[3]


async def start(config: UserDomainConfig, *flags: str, trace: HostTrace | None = None) -> Process:
    values = {name: value for name, value in config.model_dump(mode="json").items() if value is not None}
    said = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in values.items()}
    environment = {**os.environ, **{f"DIREDI_SITE_{name.upper()}": value for name, value in said.items()}}
    return await asyncio.create_subprocess_exec(
        *(trace.prefix if trace else ()),
        sys.executable,
        "-m",
        "user_domain",
        *flags,
        cwd=ROOT,
        env=environment,
        stderr=PIPE,
    )


@asynccontextmanager
async def site_process(
    config: UserDomainConfig, trace: HostTrace | None = None
) -> AsyncIterator[tuple[Process, list[dict[str, object]]]]:
    """A running user domain and the lines of its log, which grow while it runs."""
    process = await start(config, trace=trace)
    lines: list[dict[str, object]] = []

    async def read() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            if line.startswith(b"{"):
                lines.append(json.loads(line))

    reading = asyncio.create_task(read())
    try:
        await until(lambda: any(line["event"] == "service_started" for line in lines) or process.returncode is not None)
        yield process, lines
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_when_told_to_even_in_the_middle_of_a_job_that_never_ends(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path, number: signal.Signals
) -> None:
    endless = {"form": "weights", "tutor": {"epochs": 100_000, "batch": 4}, "coreset_images": 0}
    await cloud.site.offer(models.extract_task(cloud, recipe=endless))
    async with site_process(config_of(tmp_path / "site", pki, cloud.address, data, approval="always")) as (process, _):
        await until(lambda: bool(list((tmp_path / "site" / "jobs").rglob("spec.json"))))
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


async def test_killed_in_the_middle_of_the_job_it_comes_back_and_finishes(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    await cloud.site.offer(models.extract_task(cloud))
    config = config_of(tmp_path / "site", pki, cloud.address, data)
    async with site_process(config) as (process, _):
        await until(lambda: any(step == "tutor-2" for step, _, _ in cloud.site.progress))
        assert not cloud.site.gaps
        process.kill()
    proposed = cloud.site.labels
    cloud.site.labels = cloud.site.labels.expand(["tram"])  # another site was quicker
    async with site_process(config):
        await until(lambda: bool(cloud.site.gaps))
    names = tuple(item.name for item in cloud.site.gaps[0].labels.classes)
    assert names == proposed.names, "a resumed cycle keeps the ids that it was given"
    assert not cloud.site.failures


async def test_killed_in_the_middle_of_an_upload_it_sends_no_chunk_twice(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, models: Models, data: Path
) -> None:
    recipe = {"form": "weights", "tutor": {"epochs": 1, "batch": 4}, "codec": "fp32-zstd", "student_gap": False}
    await cloud.site.offer(models.extract_task(cloud, recipe=recipe))
    cloud.blobs.hold_after = 1
    config = config_of(tmp_path / "site", pki, cloud.address, data, approval="always")
    async with site_process(config) as (process, _):
        await until(lambda: cloud.blobs.chunks == 1)
        process.kill()
    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "site" / "jobs").rglob("result.json")}
    cloud.blobs.hold_after = None
    async with site_process(config):
        await until(lambda: bool(cloud.site.gaps))
    assert cloud.blobs.put_bytes == cloud.site.gaps[0].tutor_gap.blob.bytes
    assert cloud.blobs.chunks >= 2
    assert {path: path.stat().st_mtime_ns for path in results} == results, "the job is not run again"


async def test_that_the_cloud_is_away_is_said_once(tmp_path: Path, pki: Pki, data: Path) -> None:
    config = config_of(tmp_path / "site", pki, f"localhost:{free_port()}", data, retry_longest_s=0.1)
    async with site_process(config) as (_, lines):
        await until(lambda: any(line["event"] == "cloud_disconnected" for line in lines))
        await asyncio.sleep(3)
    assert [line["event"] for line in lines].count("cloud_disconnected") == 1


async def refused(config: UserDomainConfig, *flags: str) -> tuple[int, str]:
    """Exit code and the last line of standard error."""
    process = await start(config, *flags)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert b"Traceback" not in err
    assert process.returncode is not None
    return process.returncode, err.decode().strip().splitlines()[-1]


async def test_a_port_in_use_is_one_sentence_and_exit_code_6(tmp_path: Path, pki: Pki, data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, err = await refused(config_of(tmp_path / "site", pki, "localhost:1", data, listen=listen))
    assert code == 6
    assert err.startswith("user_domain: ")
    assert listen in err


async def test_a_site_whose_clock_is_wrong_waits_says_so_and_begins_when_the_certificate_is_valid(
    tmp_path: Path, pki: Pki, cloud: SiteCloud, data: Path
) -> None:
    identity, authority = tmp_path / "identity", pki.folder / "ca"
    ca.issue(authority, "site", "site-1", HOSTS, identity, now=datetime.now(UTC) + timedelta(hours=2))
    process = await start(config_of(tmp_path / "site", pki, cloud.address, data, identity=identity))
    try:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            async for line in process.stderr:
                if b"identity_rejected" in line:
                    assert b"check this clock" in line
                    ca.issue(authority, "site", "site-1", HOSTS, identity)
                if b'"service_started"' in line:
                    break
        await until(lambda: cloud.site.watchers == 1)
        process.terminate()
        await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_certificate_of_another_site_is_one_sentence_and_exit_code_2(
    tmp_path: Path, pki: Pki, data: Path
) -> None:
    config = config_of(tmp_path / "site", pki, "localhost:1", data, identity=pki.issue("site", "site-9"))
    code, err = await refused(config)
    assert code == 2
    assert "is for site/site-9, not for site/site-1" in err


@pytest.mark.parametrize("wrong", ["missing", "label", "labels in another folder"])
async def test_a_data_set_that_cannot_be_read_is_one_sentence_and_exit_code_2(
    tmp_path: Path, pki: Pki, wrong: str
) -> None:
    path = write_data_set(tmp_path / "set")
    if wrong == "missing":
        path = tmp_path / "nowhere.yaml"
    elif wrong == "labels in another folder":
        (tmp_path / "set" / "labels").rename(tmp_path / "set" / "annotations")
    else:
        label = sorted((tmp_path / "set" / "labels" / "train").iterdir())[0]
        label.write_text("0 0.5 0.5 0.1 1.5\n")
    code, err = await refused(config_of(tmp_path / "site", pki, "localhost:1", path))
    assert code == 2
    said = {"missing": "nowhere.yaml", "label": "line 1", "labels in another folder": "set/annotations/train"}
    assert said[wrong] in err


async def test_a_site_without_labels_is_told_how_to_start_and_then_starts(
    tmp_path: Path, pki: Pki, cloud: SiteCloud
) -> None:
    path = write_data_set(tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "labels")
    code, err = await refused(config_of(tmp_path / "site", pki, "localhost:1", path))
    assert code == 2
    assert "--labelled false here and --labels oracle to the cycle" in err
    path.write_text(f"path: {path.parent}\ntrain: images/train\nval: images/val\n")
    async with site_process(config_of(tmp_path / "site", pki, cloud.address, path, labelled=False)) as (_, lines):
        [started] = [line for line in lines if line["event"] == "service_started"]
    assert started["train_images"] == 8


async def test_an_oracle_that_is_not_there_is_one_sentence_and_exit_code_2(
    tmp_path: Path, pki: Pki, data: Path
) -> None:
    config = config_of(tmp_path / "site", pki, "localhost:1", data, oracle=tmp_path / "yolo11x.pt")
    code, err = await refused(config)
    assert code == 2
    assert "yolo11x.pt does not exist" in err


async def test_what_is_left_out_of_the_data_set_is_in_the_log(tmp_path: Path, pki: Pki, cloud: SiteCloud) -> None:
    path = write_data_set(tmp_path / "set")
    (tmp_path / "set" / "images" / "train" / "phone.heic").write_bytes(b"x")
    async with site_process(config_of(tmp_path / "site", pki, cloud.address, path)) as (_, lines):
        [noted] = [line for line in lines if line["event"] == "private_data_noted"]
    assert "1 .heic" in str(noted["notes"])
