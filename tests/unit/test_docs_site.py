"""The documentation as a site: built strictly, and neither the build nor a page asks another host for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

_BUILD_WITHOUT_A_NETWORK = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        sys.exit(f"the build of the documentation used the network: {event} {arguments}")

sys.addaudithook(refuse)
from mkdocs.__main__ import cli
cli()
"""
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc=["']?(https?:)?//"""
    r"""|<link\b(?=[^>]*rel="?(?:stylesheet|icon|preconnect|preload|dns-prefetch))[^>]*?\bhref=["']?(https?:)?//"""
    r"""|(?:url\(|@import )["']?(https?:)?//"""
)
"""What a browser fetches by itself when it shows a page; links that a reader may follow are not meant."""


def build(site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _BUILD_WITHOUT_A_NETWORK, "build", "--strict", "--quiet", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_site_has_every_page_of_the_documentation(site: Path):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    pages = {page.with_name("index.html") if page.name == "README.html" else page for page in pages}
    assert {page for page in pages if not (site / page).is_file()} == set()


def test_a_built_page_asks_no_other_host_for_anything(site: Path):
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        found = _LOADED.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.relative_to(site)}: {found}"


def test_a_browser_is_told_to_refuse_other_hosts(site: Path):
    for path in site.rglob("*.html"):
        assert "default-src 'self'" in path.read_text(encoding="utf-8"), path.relative_to(site)


def test_lists_look_in_the_site_as_they_do_in_the_repository():
    """Python-Markdown takes a list for text unless a blank line stands before it; GitHub does not."""
    item = re.compile(r"^\s*(?:[-*]|\d+\.) ")
    for path in (ROOT / "docs").rglob("*.md"):
        lines = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8")).splitlines()
        for before, line in pairwise(lines):
            starts = item.match(line) and before.strip() and not before.startswith(" ") and not item.match(before)
            assert not starts, f"{path.relative_to(ROOT)}: put a blank line before {line!r}"


def test_every_decision_says_what_was_weighed_and_what_follows():
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        text = path.read_text(encoding="utf-8")
        assert re.search(r"^Status: \w+.* Date: \d{4}-\d\d-\d\d\.$", text, re.M), path.name
        headings = re.findall(r"^## (.*)$", text, re.M)
        assert headings == ["Context", "Options", "Decision", "Consequences"], path.name


def test_the_links_of_the_front_pages_lead_somewhere():
    """What mkdocs does not see: the pages outside docs/."""
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{name} links to {target}"
