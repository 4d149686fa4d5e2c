"""Real servers, real TLS, real sockets: an authority of the tests' own, a proxy that counts, slows, stalls and cuts."""

from __future__ import annotations

import pytest
from proxies import Proxy

from diredi.rpc.server import start_server
from tests.support.pki import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def foreign_pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="session")
def cloud(pki):
    return pki.credentials("cloud", "cloud")


@pytest.fixture(scope="session")
def site(pki):
    return pki.credentials("site", "site-1")


@pytest.fixture
async def serve(cloud):
    """serve(servicer, ..., listen=..., **of start_server) -> a server that is stopped after the test."""
    servers = []

    async def start(*servicers, listen="127.0.0.1:0", credentials=cloud, **more):
        server = await start_server(credentials, listen, servicers, **more)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop(0)


@pytest.fixture
async def proxy():
    """await proxy(address) -> a Proxy before that server; await proxy(address, HttpProxy, ...) -> one of that kind."""
    proxies = []

    async def start(target, kind=Proxy, *options):
        proxies.append(await kind(target, *options).start())
        return proxies[-1]

    yield start
    for one in proxies:
        await one.close()
