"""A cloud whose past is gone says so, and does not begin another one beside devices that know better."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from diredi.errors import WrongState
from tests.services.cloud.world import World


def lose_database(state: Path) -> None:
    for path in state.glob("cloud.sqlite*"):
        path.unlink()


def empty_database(state: Path) -> None:
    lose_database(state)
    (state / "cloud.sqlite").touch()


@pytest.mark.parametrize("damage", [lose_database, empty_database])
async def test_a_database_that_is_gone_beside_its_files_is_said_and_no_new_release_1_is_made(
    world: World, damage: Callable[[Path], None]
) -> None:
    blobs = sorted((world.state_dir / "blobs").rglob("*"))
    damage(world.state_dir)
    with pytest.raises(WrongState, match=r"in the database is none, and release 1 has been made.*restore a backup"):
        await world.start()
    assert sorted((world.state_dir / "blobs").rglob("*")) == blobs


@pytest.mark.slow
@pytest.mark.parametrize("remembers", ["ledger", "metadata"])
async def test_a_backup_from_before_the_newest_release_is_refused_until_its_loss_is_accepted(
    world: World, remembers: str
) -> None:
    backup = take_backup(world)
    async with world.cloud():
        device = world.device()
        await device.register()
        await one_release(world, "first")
        await device.until(2)
    restore(world, backup)
    if remembers == "metadata":
        (world.state_dir / "ledger.json").unlink()
    with pytest.raises(WrongState, match="in the database is 1, and release 2 has been made before"):
        await world.start()
    await world.close()
    world.settings["accept_lost_past"] = True
    async with world.cloud():
        pass
    world.settings["accept_lost_past"] = False
    async with world.cloud():
        device = world.device()
        await device.register()
        await one_release(world, "again")
        assert (await device.until(3)).version == 3


async def test_class_ids_that_were_given_out_are_not_given_to_other_names(world: World) -> None:
    backup = take_backup(world)
    async with world.cloud():
        site, operator = world.site(), world.operator()
        task = await site.extracting(operator)
        assert (await site.propose(task.cycle_id, "forklift")).names[-1] == "forklift"
    restore(world, backup)
    with pytest.raises(WrongState, match="lacks class names of fleet"):
        await world.start()


async def test_another_database_is_not_taken_for_the_own(world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other", world.identities)
    async with other.cloud():
        pass
    restore(world, take_backup(other))
    with pytest.raises(WrongState, match="another one"):
        await world.start()


def take_backup(world: World) -> Path:
    """A copy of the database of a cloud that is not running."""
    folder = world.folder / "backup"
    folder.mkdir()
    for path in world.state_dir.glob("cloud.sqlite*"):
        shutil.copy(path, folder)
    return folder


def restore(world: World, backup: Path) -> None:
    lose_database(world.state_dir)
    for path in backup.iterdir():
        shutil.copy(path, world.state_dir)


async def one_release(world: World, request_id: str) -> None:
    """A cycle up to its canaries."""
    site, operator = world.site(), world.operator()
    task = await site.extracting(operator, request_id)
    await site.extract(task)
    await operator.until(task.cycle_id, "CANARY")
