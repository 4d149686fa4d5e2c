"""Real servers, real TLS, real sockets: an authority of the tests' own, a proxy that counts, slows, stalls and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from datetime import UTC, datetime, timedelta

import pytest

from diredi.rpc.server import start_server
from diredi.trust import ca

HOSTS = ["localhost", "127.0.0.1", "::1"]


class Pki:
    """One authority and whoever it believes."""

    def __init__(self, root):
        self.root = root
        self.numbers = itertools.count()
        ca.init(root / "ca")

    def issue(self, role, name, site="", hosts=HOSTS, **more):
        return ca.issue(self.root / "ca", role, name, hosts, self.root / f"own-{next(self.numbers)}", site, **more)

    def expired(self, role, name):
        """A certificate that ran out yesterday; such a folder would not load, so it is loaded as of then."""
        return self.issue(role, name, now=datetime.now(UTC) - timedelta(days=11), lifetime=timedelta(days=10))


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def foreign_pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="session")
def cloud(pki):
    return pki.issue("cloud", "cloud")


@pytest.fixture(scope="session")
def site(pki):
    return pki.issue("site", "site-1")


@pytest.fixture
async def serve(cloud):
    """serve(servicer, ..., listen=..., meter=...) -> a server that is stopped after the test."""
    servers = []

    async def start(*servicers, listen="127.0.0.1:0", credentials=cloud, meter=None):
        server = await start_server(credentials, listen, servicers, meter=meter)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop(0)


class Proxy:
    """Plain TCP in front of a server: counts the client's bytes; can be slow, fall silent, cut what is open."""

    def __init__(self, target):
        self.host, _, port = target.rpartition(":")
        self.port = int(port)
        self.sent_bytes = 0
        self.connections = 0
        self.bytes_per_s = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.tasks = set()
        self.writers = set()

    async def start(self):
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def _accept(self, reader, writer):
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_connection(self.host, self.port)
            self.writers |= {writer, there_writer}
            await asyncio.gather(self._pump(reader, there_writer, True), self._pump(there_reader, writer, False))

    async def _pump(self, reader, writer, outbound):
        with contextlib.suppress(OSError):
            while data := await reader.read(16384):
                await self.flowing.wait()
                if outbound:
                    self.sent_bytes += len(data)
                    if self.bytes_per_s is not None:
                        await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
            writer.close()

    def fall_silent(self):
        """Connections stay open and nothing travels, as when a cable is pulled."""
        self.flowing.clear()

    def cut(self):
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def close(self):
        self.server.close()
        self.cut()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def proxy():
    """await proxy(address) -> a Proxy before that server."""
    proxies = []

    async def start(target):
        proxies.append(await Proxy(target).start())
        return proxies[-1]

    yield start
    for one in proxies:
        await one.close()
