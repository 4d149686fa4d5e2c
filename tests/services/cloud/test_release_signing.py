"""Releases that wait for a person's key: over real gRPC, by the command line, with the cloud restarted on the way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from diredi.errors import InvalidInput, Refused, WrongState
from diredi.rpc.release_metadata import fetch_from_thread
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import releases_pb2, releases_pb2_grpc
from diredi.trust import release_keys
from diredi.trust.release_client import ReleaseClient
from tests.services.cloud.test_backup import release as another_release
from tests.services.cloud.world import World, ask
from tests.support.command import command


async def test_a_release_waits_for_a_key_elsewhere_and_reaches_devices_only_when_that_has_signed(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.settings["release_keys"] = tmp_path / "elsewhere"
    world.settings["release_keys"].mkdir()
    waiting = tmp_path / "waiting.json"

    async def release(*arguments: str, key: str = "targets-key.pem") -> tuple[int, Any]:
        keys = ["--key", str(world.identities / "ca" / "releases" / key), "--yes"] if "sign" in arguments else []
        options = ["--cloud", world.address, "--identity", world.identities / "alice"]
        return (await command(capsys, "release", *arguments, *keys, *options))[:2]

    async with world.cloud() as cloud:
        device = world.device()
        await device.register()
        await release("sign")  # release 1, if the cloud that has made it has not come to sign it
        assert (await release("sign"))[0] == WrongState.exit_code, "nothing waits"
        assert await another_release(cloud) == 2
        code, (request,) = await release("pending", "--out", str(waiting))
        assert (code, request["signatures"], request["threshold"]) == (0, 0, 1)
        assert any(line.startswith("NEW: release 2,") for line in request["words"])
        assert "gone: release 1" in request["words"]
        assert (await anext(device.releases())).release.version == 1
        for who in ("site-1", "cam-1"):
            stub = releases_pb2_grpc.ReleaseServiceStub(world.channel(who))
            with pytest.raises(Refused):
                await anext(aiter(read_messages(stub.ListUnsigned(releases_pb2.ListUnsignedRequest()), 30)))
            with pytest.raises(Refused):
                await ask(stub.AddSignatures, releases_pb2.AddSignaturesRequest(name="targets", metadata=b"{}"))
        assert (await release("sign", key="online-key.pem"))[0] == InvalidInput.exit_code
    await world.close()
    async with world.cloud():
        device = world.device()
        assert (await anext(device.releases())).release.version == 1
        assert (await release("sign", "--in", str(waiting)))[0] == 0, "without a network"
        code, done = await release("hand-in", str(waiting))
        assert (code, done["published"]) == (0, True), "what waited before the restart still does"
        told = await device.until(2)
        fetch = fetch_from_thread(device.stub, asyncio.get_running_loop())
        client = ReleaseClient(tmp_path / "camera", release_keys.read_root(world.identities / "cam-1"), fetch)
        assert client.check(await asyncio.to_thread(client.prove, told.target)).claims.version == 2
        assert (await release("pending"))[1] == []
