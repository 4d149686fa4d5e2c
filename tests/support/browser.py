"""A real browser, which writes down what a page does wrong."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
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
    """Run Chromium for a block; the test is skipped where there is none."""
    if not CHROMIUM:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            await browser.close()


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


def _is_foreign(url: str, host: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in {"blob", "data"} and parts.netloc != host
