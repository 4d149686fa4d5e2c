"""The pictures of docs/results are drawn from the committed JSON, and from nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_pictures", ROOT / "bench" / "pictures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_result_has_a_picture_and_a_page(pictures: ModuleType):
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "results").glob("*.md")}
    assert {path.stem for path in (ROOT / "bench" / "results").glob("*.json")} <= set(pictures.PICTURES)
    assert set(pictures.PICTURES) == set(pages)
    for name, page in pages.items():
        assert f"({name}.svg)" in page


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "docs" / "results").glob("*.md"))])
def test_the_picture_is_that_of_the_committed_numbers(pictures: ModuleType, name: str, tmp_path: Path):
    drawn = pictures.draw(name, tmp_path).read_bytes()
    assert drawn == (ROOT / "docs" / "results" / f"{name}.svg").read_bytes(), "run bench/pictures.py"
