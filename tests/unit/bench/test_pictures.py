"""The pictures of docs/results are drawn from the committed JSON, and from nothing else."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def pictures() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench"))
        yield importlib.import_module("pictures")


def test_every_result_has_a_picture_and_a_page_or_is_told_with_its_command(pictures: ModuleType):
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "results").glob("*.md")}
    others = {path.stem for path in (ROOT / "bench" / "results").glob("*.json")} - set(pictures.PICTURES)
    told = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    assert not {name for name in others if not re.search(rf"make bench-{name}\b|python bench/{name}\.py", told)}
    assert set(pictures.PICTURES) == set(pages)
    for name, page in pages.items():
        assert f"({name}.svg)" in page


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "docs" / "results").glob("*.md"))])
def test_the_picture_is_that_of_the_committed_numbers(pictures: ModuleType, name: str, tmp_path: Path):
    drawn = pictures.draw(name, tmp_path).read_bytes()
    assert drawn == (ROOT / "docs" / "results" / f"{name}.svg").read_bytes(), "run bench/pictures.py"
