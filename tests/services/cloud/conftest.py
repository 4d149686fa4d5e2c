from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.cloud.world import World, make_identities
from tests.unit.cloud_server.postgres import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_identities(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def first_release(tmp_path_factory: pytest.TempPathFactory, identities: Path) -> Path:
    """The state of a cloud that has made its first release, to be copied."""
    world = World(tmp_path_factory.mktemp("first"), identities)

    async def make() -> None:
        async with world.cloud():
            pass

    asyncio.run(make())
    return world.state_dir


@pytest.fixture
async def empty_world(tmp_path: Path, identities: Path, quick_processes: None) -> AsyncIterator[World]:
    """Where a cloud can be started for the first time."""
    world = World(tmp_path, identities)
    yield world
    await world.close()


@pytest.fixture
def world(empty_world: World, first_release: Path) -> World:
    """Where a cloud with its first release can be started, stopped and started again."""
    shutil.copytree(first_release, empty_world.state_dir)
    return empty_world
