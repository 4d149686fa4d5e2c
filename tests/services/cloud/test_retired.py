"""Who is retired is cut off, by the cloud and by sites and devices that nobody has touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from diredi.errors import InvalidInput, NotFound, Unauthenticated
from diredi.rpc.client import call, connect
from diredi.rpc.enrolment import enrol
from diredi.rpc.renewal import DenyListFollower
from diredi.rpc.server import start_server
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import edge_pb2, enrolment_pb2, sites_pb2
from diredi.rpc.v1.edge_pb2_grpc import EdgeServiceStub
from diredi.rpc.v1.enrolment_pb2_grpc import EnrolmentServiceServicer, EnrolmentServiceStub
from diredi.rpc.v1.sites_pb2_grpc import SiteServiceStub
from diredi.trust import ca
from diredi.trust.deny_list import DenyList
from diredi.trust.enrolment import Token
from diredi.trust.identity import Credentials, Identity, Role
from edge_node.config import EdgeConfig
from edge_node.node import serve
from tests.services.cloud.world import World, ask
from tests.support.net import free_port
from tests.support.waiting import PATIENCE_S, until
from user_domain.cloud import CloudClient

HOSTS = ["127.0.0.1"]
CAMERA = Identity(Role.DEVICE, "cam-1", "site-1")
SITE_2 = sites_pb2.WatchTasksRequest(site="site-2")
PEOPLE = (
    ("cloud", "cloud", ""), ("admin", "anna", ""), ("operator", "bob", ""), ("viewer", "bob", ""),
    ("site", "site-1", ""), ("site", "site-2", ""), ("device", "cam-1", "site-1"), ("device", "cam-2", "site-1"),
)  # fmt: skip


@pytest.fixture
async def world(tmp_path: Path, first_release: Path) -> AsyncIterator[World]:
    """A cloud that signs, with an authority of this test's own."""
    import shutil

    authority = tmp_path / "ca"
    ca.init(authority)
    world = World(tmp_path, tmp_path / "pki", settings={"authority": authority})
    for role, name, site in PEOPLE:
        folder = world.identities / (f"{role}-{name}" if name == "bob" else name)
        ca.issue(authority, role, name, HOSTS if role in ("cloud", "device") else [], folder, site)
    (world.identities / "anna").rename(world.identities / "alice")  # who looks whether the cloud is ready
    shutil.copytree(first_release, world.state_dir)
    yield world
    await world.close()


async def retire(world: World, identity: str) -> list[str]:
    stub = EnrolmentServiceStub(world.channel("alice"))
    return list((await ask(stub.Retire, enrolment_pb2.RetireRequest(identity=identity))).identities)


@asynccontextmanager
async def camera(world: World, tmp_path: Path) -> AsyncIterator[str]:
    """A real edge node in this process, and where it answers."""
    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames" / "0.png"), np.zeros((48, 64, 3), np.uint8))
    config = EdgeConfig(
        device="cam-1", site="site-1", cloud=world.address, identity=world.identities / "cam-1",
        state_dir=tmp_path / "node", listen=f"127.0.0.1:{free_port()}", source=f"folder:{tmp_path / 'frames'}",
        heartbeat_s=0.5,
    )  # fmt: skip
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(config, stop))
    try:
        yield config.listen
    finally:
        stop.set()
        await serving


async def test_a_device_that_is_retired_loses_its_open_stream_at_another_that_nobody_has_touched(
    world: World, tmp_path: Path
) -> None:
    async with (
        world.cloud(),
        camera(world, tmp_path) as address,
        connect(address, world.credentials("cam-2"), server=CAMERA) as channel,
    ):
        stub = EdgeServiceStub(channel)
        await call(stub.GetStatus, edge_pb2.GetStatusRequest(), deadline_s=PATIENCE_S, attempts=40)
        stream = read_messages(stub.DetectStream(edge_pb2.DetectStreamRequest()), PATIENCE_S)
        watching = asyncio.create_task(anext(stream))

        async def follows() -> bool:
            return "cam-1" in await world.operator().devices()

        await until(follows)
        assert await retire(world, "operator/bob") == ["operator/bob", "viewer/bob"]
        await until((world.identities / "cam-1" / "crl.pem").exists)
        assert not watching.done(), "who was retired is another"
        assert await retire(world, "device/site-1/cam-2") == ["device/site-1/cam-2"]
        with pytest.raises(Unauthenticated, match="was revoked"):
            await asyncio.wait_for(watching, PATIENCE_S)


async def test_the_cloud_itself_cuts_off_who_is_retired_with_tokens_and_devices(world: World, tmp_path: Path) -> None:
    async with world.cloud():
        stub = EnrolmentServiceStub(world.channel("alice"))
        made = await ask(stub.CreateToken, enrolment_pb2.CreateTokenRequest(identity="device/site-2/new", valid_s=600))
        token = Credentials.parse(made.ca, made.certificate, made.key)
        tasks = read_messages(SiteServiceStub(world.channel("site-2")).WatchTasks(SITE_2), PATIENCE_S)
        waiting = asyncio.create_task(drain(tasks))
        for wrong, error in (("admin/anna", InvalidInput), ("cloud/cloud", InvalidInput), ("site/none", NotFound)):
            with pytest.raises(error):
                await retire(world, wrong)
        assert await retire(world, "site/site-2") == ["device/site-2/new", "site/site-2"]
        with pytest.raises(Unauthenticated, match="was revoked"):
            await asyncio.wait_for(waiting, PATIENCE_S)
        with pytest.raises(Unauthenticated, match="was revoked"):
            await enrol(Token(world.address, token), tmp_path / "new")


async def test_a_site_fetches_the_list_over_the_stream_that_it_has(world: World) -> None:
    folder, own = world.identities / "site-1", world.credentials("site-1")
    follower = DenyListFollower(folder)

    async def watch(client: CloudClient) -> None:
        async for _ in client.watch_tasks(
            "site-1", auto_approve=False, publish_style=False, silence_s=PATIENCE_S, longest_s=1.0,
            on_break=lambda: None, on_deny_list=follower.announce,
        ):  # fmt: skip
            pass

    async with world.cloud():
        channel = world.channel("site-1")
        client = CloudClient(channel, world.folder / "downloads", own)
        tasks = [asyncio.create_task(work) for work in (watch(client), follower.run(channel))]
        await world.operator().until_known("site-1")
        await retire(world, "device/site-1/cam-2")
        await until((folder / "crl.pem").exists)
        for task in tasks:
            task.cancel()
    assert (folder / "crl.pem").read_bytes() == (world.settings["authority"] / "crl.pem").read_bytes()


@pytest.mark.parametrize("attack", ["rolled back", "of another authority", "not a list"])
async def test_a_deny_list_that_would_let_somebody_in_again_is_refused(
    world: World, tmp_path: Path, attack: str
) -> None:
    """By a cloud that was stolen: it has the cloud's certificate, but not the authority's key."""
    authority, folder, own = world.settings["authority"], world.identities / "site-1", world.credentials("site-1")
    ca.revoke(authority, [Identity(Role.DEVICE, "cam-1", "site-1")])
    older = (authority / "crl.pem").read_bytes()
    ca.revoke(authority, [Identity(Role.DEVICE, "cam-2", "site-1")])
    newer = (authority / "crl.pem").read_bytes()
    (folder / "crl.pem").write_bytes(newer)
    if attack == "of another authority":
        ca.init(tmp_path / "evil")
        ca.issue(tmp_path / "evil", "site", "x", [], tmp_path / "x")
        ca.revoke(tmp_path / "evil", [Identity(Role.SITE, "x")])
        older = (tmp_path / "evil" / "crl.pem").read_bytes()
    asked = asyncio.Event()

    class Stolen(EnrolmentServiceServicer):
        async def GetTrust(self, request: Any, context: Any) -> enrolment_pb2.GetTrustResponse:
            asked.set()
            return enrolment_pb2.GetTrustResponse(deny_list=b"" if attack == "not a list" else older)

    server = await start_server(world.credentials("cloud"), "127.0.0.1:0", [Stolen()])
    follower = DenyListFollower(folder)
    with capture_logs() as logs:
        async with connect(server.address, own) as channel:
            following = asyncio.create_task(follower.run(channel))
            follower.announce(DenyList.parse(newer, own.ca).number + 1)
            await asyncio.wait_for(asked.wait(), PATIENCE_S)
            await until(lambda: any(line["event"] == "deny_list_not_fetched" for line in logs))
            following.cancel()
    await server.stop(0)
    assert (folder / "crl.pem").read_bytes() == newer


async def drain(messages: AsyncIterator[Any]) -> None:
    async for _ in messages:
        pass
