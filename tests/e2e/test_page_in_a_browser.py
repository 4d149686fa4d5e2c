"""The page of a real demo in a real browser, without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest

from tests.e2e.demo_world import Demo

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]

_PROBE = """<script>document.title = JSON.stringify({
  width: document.documentElement.scrollWidth, window: innerWidth,
  broken: [...document.images].filter(i => !i.naturalWidth).length,
  charts: document.querySelectorAll("svg.chart").length,
  pictures: document.querySelectorAll("figure.pair").length })</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    return found


def browse(chromium: str, tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            *flags,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_fits_its_window_and_shows_everything(chromium: str, demo: Demo, tmp_path: Path, width: int):
    copy = tmp_path / "report.html"
    copy.write_text(demo.folder.page.read_text().replace("</body>", f"{_PROBE}</body>"))
    seen = browse(chromium, tmp_path, f"--window-size={width},2000", "--dump-dom", copy.as_uri())
    title = re.search(r"<title>(.*?)</title>", seen.stdout)
    assert title is not None
    said = json.loads(title[1])
    assert said["width"] <= said["window"], "nothing may stick out to the right"
    assert said["broken"] == 0
    assert said["charts"] == 4 and said["pictures"] == 4
    assert ":CONSOLE" not in seen.stderr, "errors in the page"


def test_light_and_dark_are_both_painted(chromium: str, demo: Demo, tmp_path: Path):
    brightness = {}
    for name, flags in {"light": [], "dark": ["--blink-settings=preferredColorScheme=0"]}.items():
        shot = tmp_path / f"{name}.png"
        browse(
            chromium,
            tmp_path / name,
            "--window-size=1280,1600",
            f"--screenshot={shot}",
            *flags,
            demo.folder.page.as_uri(),
        )
        image = cv2.imread(str(shot))
        assert image is not None and image.std() > 5, "an empty page"
        brightness[name] = float(image.mean())
    assert brightness["light"] > 150 and brightness["dark"] < 100
