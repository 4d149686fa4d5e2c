from __future__ import annotations

import pytest
from peer_network import PeerNetwork, Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def network(pki):
    one = PeerNetwork(pki)
    yield one
    await one.close()
