from __future__ import annotations

import pytest
from peer_network import PeerNetwork

from tests.support.pki import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def network(pki):
    peers = PeerNetwork(pki)
    yield peers
    await peers.close()
