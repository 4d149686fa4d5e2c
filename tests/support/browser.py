"""A real browser, which writes down what a page does wrong."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright")

from playwright.async_api import Browser, Page, async_playwright

AXE = Path(__file__).parent / "axe" / "axe.min.js"
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


@dataclass
class Tab:
    """One window, and what was wrong in it: errors, breaches of the content policy, requests to other hosts."""

    page: Page
    problems: list[str] = field(default_factory=list)

    async def sideways(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(await self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    async def barriers(self) -> list[str]:
        """Return what axe-core finds on the page that keeps people out, of those that it calls serious or worse."""
        await self.page.evaluate(AXE.read_text())
        found = await self.page.evaluate("axe.run({resultTypes: ['violations']})")
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:200]}"
            for one in found["violations"]
            if one["impact"] in {"serious", "critical"}
        ]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Connect to the Chromium of this process, which starts with the first use; the test is skipped without one."""
    if not CHROMIUM:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    async with async_playwright() as playwright:
        yield await playwright.chromium.connect_over_cdp(_address())


@asynccontextmanager
async def tab_of(browser: Browser, host: str, *, width: int = 1280, dark: bool = False) -> AsyncIterator[Tab]:
    """Open a window of somebody who is not logged in.

    Args:
        browser: The browser.
        host: The one host:port that pages may ask.
        width: Of the window.
        dark: Whether the person likes it dark.
    """
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
    )
    tab = Tab(await context.new_page())
    tab.page.on("pageerror", lambda error: tab.problems.append(f"error: {error}"))
    tab.page.on("console", lambda line: tab.problems.append(line.text) if line.type in {"error", "warning"} else None)
    tab.page.on("request", lambda one: tab.problems.append(f"asks {one.url}") if _is_foreign(one.url, host) else None)
    try:
        yield tab
    finally:
        await context.close()


@cache
def _address() -> str:
    """Start Chromium, which ends with this process, and return where it takes commands."""
    folder = tempfile.mkdtemp(prefix="chromium-")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")
    command = [CHROMIUM, *options, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def end() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    assert process.stderr is not None
    said = next(line for line in process.stderr if line.startswith("DevTools listening on "))
    Thread(target=process.stderr.read, daemon=True).start()  # or it stops once the pipe is full
    return said.split()[-1]


def _is_foreign(url: str, host: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in {"blob", "data"} and parts.netloc != host
