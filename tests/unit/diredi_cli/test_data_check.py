"""`diredi data check`: what it says of names that may mean one class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diredi_cli.main import run
from tests.unit.diredi_cli.test_models import model
from tests.unit.diredi_demo.test_checks import data_set

Output = pytest.CaptureFixture[str]


def test_names_that_may_be_a_class_of_a_model_are_told_before_anybody_trains(tmp_path: Path, capsys: Output) -> None:
    data = data_set(tmp_path / "data", ["cars", "crane"])
    assert run(["data", "check", str(data), "--model", str(model(tmp_path, "car")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["class_proposals"] == {"cars": "car"}
    assert run(["data", "check", str(data), "--model", str(model(tmp_path, "car"))]) == 0
    assert "class_names" in capsys.readouterr().out


def test_two_names_of_one_class_in_one_set_are_told_without_a_model(tmp_path: Path, capsys: Output) -> None:
    data = data_set(tmp_path / "data", ["crane", "Crane", "boat"])
    assert run(["data", "check", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["class_proposals"] == {"Crane": "crane"}
