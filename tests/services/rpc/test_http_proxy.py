"""Where programs reach the world through a proxy: a site does, and what is on the machine itself needs none."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from test_mutual_tls import Fleet, beat

from diredi.errors import Unreachable

NAME = "cloud.test"
"""A host that only the proxy knows."""


class HttpProxy:
    """Tunnels every CONNECT to one server, or answers with another status."""

    def __init__(self, target, status="200 OK"):
        self.target, self.status = target, status
        self.asked = []

    async def start(self, monkeypatch):
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        monkeypatch.setenv("https_proxy", f"http://{host}:{port}")
        return self

    async def _answer(self, reader, writer):
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode())
        writer.write(f"HTTP/1.1 {self.status}\r\n\r\n".encode())
        if self.status == "200 OK":
            host, _, port = self.target.rpartition(":")
            there = await asyncio.open_connection(host, int(port))
            await asyncio.gather(_carry(reader, there[1]), _carry(there[0], writer))
        writer.close()

    async def stop(self):
        self._server.close()


async def _carry(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture(autouse=True)
def no_other_proxy(monkeypatch):
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_a_site_reaches_a_cloud_that_only_the_proxy_can_find(serve, site, pki, monkeypatch):
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.issue("cloud", "cloud", hosts=[NAME]))
    between = await HttpProxy(server.address).start(monkeypatch)

    await beat(f"{NAME}:7070", site)

    assert between.asked == [f"{NAME}:7070"]
    assert [str(caller) for caller in servicer.callers] == [str(site.identity)]
    await between.stop()


@pytest.mark.parametrize(
    ("listen", "host"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("[::1]", "[::1]")]
)
async def test_what_is_on_this_machine_needs_no_proxy(serve, site, monkeypatch, listen, host):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    server = await serve(Fleet(), listen=f"{listen}:0")

    await beat(f"{host}:{server.address.rpartition(':')[2]}", site)


async def test_a_proxy_that_says_no_is_named_with_the_remedy(site, monkeypatch):
    between = await HttpProxy("", status="403 Forbidden").start(monkeypatch)

    with pytest.raises(
        Unreachable, match=r"127\.0\.0\.1:\d+ cannot be reached: that proxy .* allow CONNECT .* no_proxy"
    ):
        await beat(f"{NAME}:7070", site)
    await between.stop()
