from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.cloud.world import World, make_identities


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_identities(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def world(tmp_path: Path, identities: Path) -> AsyncIterator[World]:
    """Where a cloud can be started, stopped and started again."""
    world = World(tmp_path, identities)
    yield world
    await world.close()
