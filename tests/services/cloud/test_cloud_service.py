"""The cloud as a program: what it says when it cannot start, full disks, and PostgreSQL's place in it."""

from __future__ import annotations

import hashlib
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_server.config import CloudConfig
from diredi.errors import InvalidInput, NoRoom, WrongState
from diredi.rpc.v1 import registry_pb2
from tests.services.cloud.test_cloud_restarts import ROOT, Process
from tests.services.cloud.world import World, ask


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--canary-devices", "many"], "canary_devices"),
        (["--image-size", "33"], "image_size"),
        (["--recipe.lam", "9"], "lam"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_a_wrong_configuration_is_named(arguments: list[str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        CloudConfig.from_command_line(arguments)


def test_flags_environment_and_file_name_the_same_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cloud.yaml"
    file.write_text("canary_devices: 3\nmax_harm: 0.2\nrecipe: {lam: 0.5}\n")
    monkeypatch.setenv("DIREDI_CLOUD_CONFIG", str(file))
    monkeypatch.setenv("DIREDI_CLOUD_RECIPE__CORESET_IMAGES", "7")
    config = CloudConfig.from_command_line(["--recipe.seed", "4", "--seed", "9"])
    assert (config.canary_devices, config.recipe.lam, config.recipe.seed) == (3, 0.5, 4)
    assert config.recipe.coreset_images == 7
    assert (config.cycle_recipe.max_harm, config.cycle_recipe.seed, config.bootstrap_recipe.seed) == (0.2, 4, 9)


@pytest.mark.slow
def test_a_program_that_cannot_start_ends_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cloud_server", "--state-dir", str(tmp_path), "--identity", str(tmp_path / "none")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert "ca.pem" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_password_of_the_database_is_never_shown() -> None:
    config = CloudConfig.from_command_line(["--database-url", "postgresql://me:secret@host/x"])
    assert config.database_url.get_secret_value() == "postgresql://me:secret@host/x"
    assert "secret@" not in str(config.model_dump(mode="json")) + repr(config)


async def test_a_port_in_use_is_named(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        world.address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WrongState, match=world.address):
            await world.start()


async def test_a_database_url_that_is_none_is_named(world: World) -> None:
    world.settings["database_url"] = "mysql://host/x"
    with pytest.raises(InvalidInput, match="database_url"):
        await world.start()


@pytest.mark.parametrize("setting", ["presumed", "pool"])
async def test_data_that_does_not_exist_end_the_cloud_with_their_name(empty_world: World, setting: str) -> None:
    empty_world.settings[setting] = "/no/such/data.yaml"
    cloud = await empty_world.start()
    try:
        with pytest.raises(BaseExceptionGroup) as caught:
            await cloud.work
        assert "/no/such/data.yaml" in str(caught.value.exceptions[0])
    finally:
        await cloud.stop(0)


async def test_a_job_that_dies_is_started_again_and_given_up_in_the_end(empty_world: World) -> None:
    empty_world.jobs = "tests.services.cloud.no_such_package"
    empty_world.settings["job_tries"] = 2
    cloud = await empty_world.start()
    try:
        with pytest.raises(BaseExceptionGroup) as caught:
            await cloud.work
        assert "job tests.services.cloud.no_such_package.bootstrap ended" in str(caught.value.exceptions[0])
    finally:
        await cloud.stop(0)


@pytest.mark.slow
async def test_a_full_disk_refuses_the_upload_and_nothing_else(world: World) -> None:
    process = Process(world)
    await process.start()
    try:
        await world.until_ready()
        site, operator = world.site(), world.operator()
        await site.extracting(operator)
        data = bytes(2**18)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        put = registry_pb2.PutChunkRequest(digest=digest, total_bytes=len(data), offset=0, data=data)
        before = sorted(world.state_dir.joinpath("blobs").rglob("*"))
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (2**17, resource.RLIM_INFINITY))
        with pytest.raises(NoRoom):
            await ask(site.blobs.PutChunk, put)
        assert sorted(world.state_dir.joinpath("blobs").rglob("*")) == before
        assert not (await ask(site.blobs.StatBlob, registry_pb2.StatBlobRequest(digest=digest))).received_bytes
        assert len((await ask(operator.registry.ListModels, registry_pb2.ListModelsRequest())).models) == 2
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert (await ask(site.blobs.PutChunk, put)).complete
    finally:
        process.kill()
