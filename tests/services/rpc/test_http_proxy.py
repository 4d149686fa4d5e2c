"""Where programs reach the world through a proxy: a site does, and what is on the machine itself needs none."""

from __future__ import annotations

import pytest
from proxies import HttpProxy
from test_mutual_tls import Fleet, beat

from diredi.errors import Unreachable

NAME = "cloud.test"
"""A host that only the proxy knows."""


@pytest.fixture(autouse=True)
def no_other_proxy(monkeypatch):
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_a_site_reaches_a_cloud_that_only_the_proxy_can_find(serve, site, pki, proxy, monkeypatch):
    servicer = Fleet()
    server = await serve(servicer, credentials=pki.anew("cloud", "cloud", hosts=[NAME]))
    between = await proxy(server.address, HttpProxy)
    monkeypatch.setenv("https_proxy", f"http://{between.address}")

    await beat(f"{NAME}:7070", site)

    assert between.asked == [f"{NAME}:7070"]
    assert [str(caller) for caller in servicer.callers] == [str(site.identity)]


@pytest.mark.parametrize(
    ("listen", "host"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("[::1]", "[::1]")]
)
async def test_what_is_on_this_machine_needs_no_proxy(serve, site, monkeypatch, listen, host):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    server = await serve(Fleet(), listen=f"{listen}:0")

    await beat(f"{host}:{server.address.rpartition(':')[2]}", site)


async def test_a_proxy_that_says_no_is_named_with_the_remedy(site, proxy, monkeypatch):
    between = await proxy("127.0.0.1:9", HttpProxy, "403 Forbidden")
    monkeypatch.setenv("https_proxy", f"http://{between.address}")

    with pytest.raises(
        Unreachable, match=rf"{between.address} cannot be reached: that proxy .* allow CONNECT .* no_proxy"
    ):
        await beat(f"{NAME}:7070", site)
