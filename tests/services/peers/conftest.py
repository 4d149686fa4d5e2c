from __future__ import annotations

import pytest
from peer_world import Pki, World


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def world(pki):
    one = World(pki)
    yield one
    await one.close()
