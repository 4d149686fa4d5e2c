"""The page that leads through the code of one cycle: it is short, and what it names is there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.cycle_page import PAGE, ROOT, named_calls


def functions_of(tree: ast.Module | ast.ClassDef, outer: str = "") -> set[str]:
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {outer + node.name, *functions_of(node, f"{outer}{node.name}.")}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(outer + node.name)
    return found


@pytest.mark.parametrize("file", sorted({call.file for call in named_calls()}))
def test_every_function_that_the_page_names_is_where_it_says(file: str) -> None:
    there = functions_of(ast.parse((ROOT / file).read_text()))
    assert {call.function for call in named_calls() if call.file == file} <= there


def test_the_way_leads_through_at_most_60_files() -> None:
    files = {file for file in re.findall(r"`([\w/]+\.py)`", PAGE.read_text()) if not file.startswith("tests/")}
    assert {call.file for call in named_calls()} <= files
    assert 40 < len(files) <= 60
    assert not [file for file in files if "/" in file and not (ROOT / file).is_file()]
