"""Output on terminals that cannot show every character."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.diredi_demo.test_checks import data_set

ROOT = Path(__file__).parents[2]
NAME = "Stra\u00dfe \u2212 \u8eca"
FEW = {"ascii": "Stra?e - ?", "cp1252": "Stra\u00dfe - ?", "utf-8": NAME}


def diredi(*arguments: str, encoding: str) -> subprocess.CompletedProcess[bytes]:
    """The command as on a machine whose locale and streams know few characters."""
    few = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "diredi_cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **few}, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", FEW)
def test_characters_that_a_terminal_lacks_are_replaced_by_like_ones(encoding: str, tmp_path: Path):
    path = data_set(tmp_path, [NAME])
    shown = diredi("data", "check", str(path), encoding=encoding)
    assert shown.returncode == 0, shown.stderr
    assert FEW[encoding] in shown.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", FEW)
def test_json_has_every_character_whatever_the_terminal(encoding: str, tmp_path: Path):
    shown = diredi("data", "check", str(data_set(tmp_path, [NAME])), "--json", encoding=encoding)
    assert json.loads(shown.stdout.decode(encoding))["names"] == [NAME]


@pytest.mark.slow
def test_an_error_and_help_fit_any_terminal(tmp_path: Path):
    data = data_set(tmp_path, ["car"])
    failed = diredi("eval", "mod\u00e8le\udcff.pt", "--data", str(data), encoding="ascii")
    assert failed.returncode == 4 and failed.stderr.startswith(b"error: ") and failed.stderr.isascii()
    for arguments in (["demo", "--help"], ["serve", "cloud", "--help"]):
        assert diredi(*arguments, encoding="ascii").stdout.isascii()
