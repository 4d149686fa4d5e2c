"""The base of all pages, served for real: TLS, limits, and what a person hears when something is wrong."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from starlette.responses import Response

from diredi.errors import InvalidInput, WrongState
from diredi.web.app import LOGINS_A_MINUTE, NavItem, Problem, Viewing, WebApp, pages_of
from diredi.web.config import PagesConfig
from tests.support.pki import Pki


def an_app(folder: Path, **config: Any) -> WebApp:
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    (folder / "templates" / "start.html").write_text(
        '{% extends "base.html" %}{% block content %}{{ _("Hello") }} {{ view.error }}{% endblock %}'
    )
    app = WebApp(
        PagesConfig(**{"listen": "127.0.0.1:0", **config}), "site 1", "diredi site open", (NavItem("/start", "Start"),),
        folder,
    )  # fmt: skip

    async def start(request: Request, session: Viewing) -> Response:
        return pages_of(request).answer(request, "start.html", Problem(error="<b>you</b>"), session=session)

    async def broken(session: Viewing) -> Response:
        raise RuntimeError("a secret of the program")

    app.api.add_api_route("/start", start)
    app.api.add_api_route("/broken", broken)
    return app


@asynccontextmanager
async def served(app: WebApp) -> AsyncIterator[str]:
    answers = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(app.run(answers.set_result))
    await asyncio.wait({running, answers}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    try:
        yield answers.result().split("/")[2]
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def get(
    host: str, path: str, cookie: str = "", tls: ssl.SSLContext | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    def ask() -> tuple[int, dict[str, str], str]:
        connection = (
            http.client.HTTPConnection(host, timeout=30)
            if tls is None
            else http.client.HTTPSConnection(host, timeout=30, context=tls)
        )
        connection.request("GET", path, headers={"Cookie": cookie, "Accept": "text/html", **headers})
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        connection.close()
        return found

    return await asyncio.to_thread(ask)


def path_of(link: str) -> str:
    return "/" + link.split("/", 3)[3]


async def test_with_a_certificate_everything_is_tls_and_the_cookie_never_goes_without(tmp_path: Path):
    identity = Pki(tmp_path / "pki").issue("cloud", "cloud")
    app = an_app(tmp_path / "app", certificate=identity / "cert.pem", key=identity / "key.pem")
    tls = ssl.create_default_context(cafile=identity / "ca.pem")
    async with served(app) as host:
        status, headers, _ = await get(host, path_of(app.link("maria", "site")), tls=tls)
        assert status == 303 and "max-age" in headers["strict-transport-security"]
        cookie = headers["set-cookie"]
        assert cookie.startswith("__Host-") and "Secure" in cookie and "HttpOnly" in cookie
        status, _, page = await get(host, "/start", cookie.partition(";")[0], tls)
        assert status == 200 and "Hello &lt;b&gt;you&lt;/b&gt;" in page and '<html lang="en">' in page
        with pytest.raises((OSError, http.client.HTTPException)):
            await get(host, "/start", cookie.partition(";")[0])


async def test_a_defect_is_told_by_a_number_and_only_the_log_says_what_it_was(tmp_path: Path):
    app = an_app(tmp_path)
    async with served(app) as host:
        _, headers, _ = await get(host, path_of(app.link("maria", "site")))
        status, _, page = await get(host, "/broken", headers["set-cookie"].partition(";")[0])
    assert status == 500 and "the log of the service says what" in page and "secret" not in page


async def test_guessing_links_is_slow(tmp_path: Path):
    app = an_app(tmp_path)
    async with served(app) as host:
        link = app.link("maria", "site")
        for _ in range(LOGINS_A_MINUTE):
            assert (await get(host, "/login/guess"))[0] == 403
        assert (await get(host, path_of(link)))[0] == 429


async def test_what_cannot_be_served_is_told_in_one_sentence(tmp_path: Path):
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(InvalidInput, match="name a pair in PEM form"):
        async with served(an_app(tmp_path, certificate=tmp_path / "no.pem", key=tmp_path / "no.pem")):
            pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WrongState, match=r"of pages.listen is taken"):
            async with served(an_app(tmp_path, listen=listen)):
                pass
