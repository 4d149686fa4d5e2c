"""A fast slice of `make proof`: what it tries at random, a few times."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def proof() -> ModuleType:
    spec = importlib.util.spec_from_file_location("proof", ROOT / "bench" / "proof.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["proof"] = module
    spec.loader.exec_module(module)
    return module


def test_what_is_random_is_tried_and_nothing_is_wrong(proof: ModuleType) -> None:
    rows = [proof.flip_bits(10), *proof.mutate_files(100)]
    assert [row.what for row in rows if not row.met] == []
    assert all(row.tried > 0 for row in rows)


def test_a_decoder_that_crashes_would_be_found_out(proof: ModuleType) -> None:
    def decode(draw: random.Random) -> None:
        if draw.random() < 0.1:
            raise KeyError("arrays")

    row = proof._decode("crashing", decode, 200)
    assert not row.met and row.wrong > 5 and "KeyError: 'arrays'" in row.figure


def test_every_test_that_the_table_names_is_there(proof: ModuleType) -> None:
    for tests in proof.TESTS.values():
        for node in tests.values():
            file, _, name = node.partition("::")
            assert f"def {name}" in (ROOT / file).read_text(), node
