"""The cloud's own identity over time."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cloud_server.app import Cloud, serve
from diredi.errors import InvalidInput
from diredi.rpc import convert
from diredi.rpc.client import call, connect
from diredi.rpc.v1 import fleet_pb2, sites_pb2, sites_pb2_grpc
from diredi.trust import ca
from tests.services.cloud.world import QUICK, World
from tests.support.net import free_port
from tests.support.waiting import PATIENCE_S, until


async def test_a_cloud_whose_certificate_has_expired_waits_for_a_renewed_one_and_then_serves(
    world: World, tmp_path: Path
) -> None:
    authority, folder = world.identities / "ca", tmp_path / "cloud"
    past = datetime.now(UTC) - timedelta(days=11)
    ca.issue(authority, "cloud", "cloud", ["127.0.0.1"], folder, now=past, lifetime=timedelta(days=10))
    world.address, world.settings["identity"] = f"127.0.0.1:{free_port()}", folder
    stop = asyncio.Event()
    with capture_logs() as logs:
        serving = asyncio.create_task(serve(world.config(), stop, jobs=QUICK))
        await until(lambda: any(line["event"] == "identity_rejected" for line in logs))
        assert not any(line["event"] == "service_started" for line in logs)
        ca.issue(authority, "cloud", "cloud", ["127.0.0.1"], folder)
        await until(lambda: any(line["event"] == "service_started" for line in logs))
    async with connect(world.address, world.credentials("alice")) as channel:
        listing = sites_pb2_grpc.SiteServiceStub(channel).ListSites
        await call(listing, sites_pb2.ListSitesRequest(), deadline_s=PATIENCE_S)
    stop.set()
    await serving


@pytest.mark.parametrize(("role", "hosts"), [("site", ["127.0.0.1"]), ("cloud", [])])
async def test_a_cloud_does_not_start_with_a_certificate_that_no_client_takes(
    empty_world: World, tmp_path: Path, role: str, hosts: list[str]
) -> None:
    ca.issue(empty_world.identities / "ca", role, "cloud", hosts, tmp_path / "own")
    empty_world.settings["identity"] = tmp_path / "own"

    with pytest.raises(InvalidInput, match="diredi pki issue"):
        await Cloud(empty_world.config()).start()


async def test_the_list_of_devices_says_for_30_days_that_a_certificate_ends(world: World) -> None:
    async with world.cloud():
        for name, days in (("cam-1", 12.5), ("cam-2", 31), ("cam-3", -2)):
            device = world.device(name)
            ends = convert.time_to(datetime.now(UTC) + timedelta(days=days))
            request = fleet_pb2.HeartbeatRequest(device=name, certificate_expires=ends)
            await call(device.stub.Heartbeat, request, deadline_s=PATIENCE_S)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "diredi_cli", "device", "list", "--cloud", world.address,
            "--identity", str(world.identities / "alice"),
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "COLUMNS": "300"},
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    said = {row.split()[0]: row for row in out.decode().splitlines() if row.strip().startswith("cam-")}
    assert "certificate ends in 12 d" in said["cam-1"]
    assert "certificate" not in said["cam-2"]
    assert "certificate expired 2 d ago" in said["cam-3"]
