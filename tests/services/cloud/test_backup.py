"""Backup and restore of a cloud by the command line: what an old backup may not undo, and damaged files."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cloud_server import backup
from cloud_server.app import Cloud
from cloud_server.entities import ReleaseStatus
from cloud_server.store import Repository
from diredi.errors import CorruptData, WrongState
from diredi.labels import LabelSpace
from diredi.rpc.release_metadata import fetch_from_thread
from diredi.trust.release_client import ReleaseClient
from diredi.trust.release_keys import read_root
from diredi_cli.main import run
from edge_node.update_states import InstallableRelease, State, UpdateRecord
from tests.services.cloud.world import DeviceSide, World
from tests.support.command import command


async def cli(world: World, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any, str]:
    """The exit code, the JSON and the error of a command with the flags of the cloud."""
    options = ["--state-dir", world.state_dir, "--identity", world.identities / "cloud"]
    for name in ("release_keys", "database_url"):
        if name in world.settings:
            options += [f"--{name.replace('_', '-')}", world.settings[name]]
    return await command(capsys, *arguments, *options)


async def release(cloud: Cloud) -> int:
    """A further release, of the same bytes: what a cycle ends with."""

    def add(r: Repository, now: datetime) -> int:
        last = r.releases.all()[0]
        student = r.models.get(last.student_id)
        return r.releases.add(student, last.tutor_id, ReleaseStatus.RELEASED, (), "", now).version

    return await cloud.context.write(add)


def lose_all(world: World) -> None:
    shutil.rmtree(world.state_dir)


class Camera:
    """What an edge node believes: TUF metadata over real gRPC, and a record in which versions only rise."""

    def __init__(self, world: World) -> None:
        self.world, self.folder, self.record = world, world.folder / "camera", UpdateRecord()

    async def follow(self, version: int) -> str:
        """Prove and install a release; or why not."""
        side: DeviceSide = self.world.device()
        await side.register()
        told = await side.until(version)
        fetch = fetch_from_thread(side.stub, asyncio.get_running_loop())
        client = ReleaseClient(self.folder, read_root(self.world.identities / "cam-1"), fetch)
        proven = client.check(await asyncio.to_thread(client.prove, told.target))
        labels = LabelSpace(version=1, names=("car",))
        offered = InstallableRelease(
            version=proven.claims.version, digest=proven.file.digest, bytes=proven.file.bytes, labels=labels,
            image_size=64,
        )  # fmt: skip
        if not (refusal := self.record.explain_refusal(offered)):
            self.record = self.record.begin(offered)
            for state in (State.VERIFYING, State.WARMING, State.SWAPPING):
                self.record = self.record.advance(state)
            self.record = self.record.finish_swap().finish()
        return refusal


@pytest.mark.slow
async def test_a_backup_taken_while_a_cycle_runs_brings_back_a_cloud_that_devices_and_cycles_go_on_with(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, camera = tmp_path / "backups" / "monday.tar", Camera(world)
    async with world.cloud():
        site, operator = world.site(), world.operator()
        await camera.follow(1)
        task = await site.extracting(operator, "r1")
        code, made, _ = await cli(world, "backup", "--out", str(file), capsys=capsys)
        assert (code, made["past"]["release"], made["damaged"]) == (0, 1, [])
        assert file.stat().st_mode & 0o077 == 0
        models = (await operator.model(task.tutor.id)).weights.digest
    lose_all(world)
    code, restored, _ = await cli(world, "restore", "--from", str(file), capsys=capsys)
    assert (code, restored["lost"]) == (0, "")
    assert (await cli(world, "integrity", "check", capsys=capsys))[1]["findings"] == []
    await world.close()
    async with world.cloud() as cloud:
        site, operator = world.site(), world.operator()
        assert (await operator.fetch((await operator.model(task.tutor.id)).weights)).exists()
        assert (await operator.model(task.tutor.id)).weights.digest == models
        assert (await site.next_task()).cycle_id == task.cycle_id
        assert await release(cloud) == 2
        assert await camera.follow(2) == ""
    code, _, error = await cli(world, "restore", "--from", str(file), capsys=capsys)
    assert code == WrongState.exit_code
    assert "overwrites nothing" in error
    code, _, error = await cli(world, "backup", "--out", str(file), capsys=capsys)
    assert code == WrongState.exit_code


async def test_after_an_old_backup_the_cloud_says_what_is_lost_devices_refuse_to_go_back_and_take_higher_versions(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, camera = tmp_path / "old.tar", Camera(world)
    keys = tmp_path / "another-disk"
    keys.mkdir()
    shutil.copy(world.identities / "cloud" / "targets-key.pem", keys)
    world.settings["release_keys"] = keys
    async with world.cloud() as cloud:
        await camera.follow(1)
        assert (await cli(world, "backup", "--out", str(file), capsys=capsys))[0] == 0
        assert await release(cloud) == 2
        assert await camera.follow(2) == ""
    lose_all(world)
    code, restored, _ = await cli(world, "restore", "--from", str(file), capsys=capsys)
    assert code == 0
    assert "release 2 has been made before" in restored["lost"]
    await world.close()
    with pytest.raises(WrongState, match="release 2 has been made before"):
        await world.start()
    (finding,) = (await cli(world, "integrity", "check", capsys=capsys))[1]["findings"]
    assert "release 2 has been made before" in finding["found"]
    world.settings["accept_lost_past"] = True
    async with world.cloud() as cloud:
        # The metadata are signed, and newer than all that the camera knows. Only the version is older.
        assert "release 1 is older than release 2" in await camera.follow(1)
        assert await release(cloud) == 3
        assert await camera.follow(3) == ""


async def test_an_old_backup_without_any_ledger_goes_on_after_the_release_that_devices_name(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "old.tar"
    async with world.cloud():
        assert (await cli(world, "backup", "--out", str(file), capsys=capsys))[0] == 0
    lose_all(world)
    restored = (await cli(world, "restore", "--from", str(file), "--last-release", "41", capsys=capsys))[1]
    assert "release 41 has been made before" in restored["lost"]
    with pytest.raises(WrongState, match="release 41 has been made before"):
        await world.start()
    world.settings["accept_lost_past"] = True
    async with world.cloud() as cloud:
        assert await release(cloud) == 42
        assert (await world.device().until(42)).version == 42


async def test_a_damaged_file_is_named_with_what_needs_it_and_repaired_by_upload_while_the_cloud_runs(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with world.cloud():
        student = await world.operator().model((await world.device().until(1)).student_id)
        digest = student.onnx.digest.removeprefix("sha256:")
        path = world.state_dir / "blobs" / "sha256" / digest[:2] / digest[2:]
        good = path.read_bytes()
        await world.operator().fetch(student.onnx)  # the cloud has verified it, and does not look again by itself
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        code, report, _ = await cli(world, "integrity", "check", capsys=capsys)
        assert code == CorruptData.exit_code
        (finding,) = report["findings"]
        assert student.onnx.digest in finding["what"]
        assert f"ONNX file of student {student.id.removeprefix('sha256:')[:12]}" in finding["found"]
        code, made, error = await cli(world, "backup", "--out", str(tmp_path / "part.tar"), capsys=capsys)
        assert code == CorruptData.exit_code
        assert [entry["digest"] for entry in made["damaged"]] == [student.onnx.digest]
        assert "damaged or missing and not in the backup" in error
        (tmp_path / "good.onnx").write_bytes(good)
        connection = ["--cloud", world.address, "--identity", str(world.identities / "alice")]
        assert await asyncio.to_thread(run, ["model", "repair", str(tmp_path / "good.onnx"), *connection]) == 0
        assert path.read_bytes() == good
        assert (await cli(world, "integrity", "check", capsys=capsys))[1]["findings"] == []


async def test_a_backup_that_is_cut_or_has_a_flipped_bit_anywhere_is_refused_and_writes_nothing(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "good.tar"
    assert (await cli(world, "backup", "--out", str(file), capsys=capsys))[0] == 0
    data = file.read_bytes()
    lose_all(world)
    bad, refused, whole = tmp_path / "bad.tar", 0, backup.check(file)
    for offset in range(0, len(data), len(data) // 40):
        for damaged in (data[:offset], data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :]):
            bad.write_bytes(damaged)
            with suppress(CorruptData):  # a tar file has bytes that mean nothing
                assert backup.check(bad) == whole
                continue
            refused += 1
            with pytest.raises(CorruptData):
                backup.restore(world.config(), bad)
            assert not world.state_dir.exists()
    assert refused > 60
