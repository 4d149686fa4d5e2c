"""A program that asks the web pages of a service, as a browser's session does."""

from __future__ import annotations

import asyncio
import http.client
import json
from dataclasses import dataclass
from typing import Any

from tests.support.waiting import PATIENCE_S


@dataclass
class Visitor:
    """A program that asks pages, with a cookie and a token if it has them."""

    host: str
    cookie: str = ""
    csrf: str = ""

    async def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return await asyncio.to_thread(self._ask, path, body, headers)

    def _ask(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        sent = {"Accept": "application/json", "Cookie": self.cookie, "X-CSRF-Token": self.csrf} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE_S)
        if body is None:
            connection.request("GET", path, headers=sent)
        elif isinstance(body, bytes):
            connection.request("POST", path, body, sent | {"Content-Type": "application/zip"})
        else:
            connection.request("POST", path, json.dumps(body), sent | {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    async def log_in(self, link: str) -> None:
        status, headers, _ = await self.ask("/" + link.partition("//")[2].partition("/")[2])
        assert status == 303
        self.cookie = headers["set-cookie"].partition(";")[0]
        self.csrf = json.loads((await self.ask("/session"))[2])["csrf"]
