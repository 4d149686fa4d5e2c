"""What every study promises: cells that are kept, a table in the project's shape, and a command that goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diredi.decentralized.studies import STUDIES, Cell, Options, Study, run_study
from diredi.evaluation.study_results import rows_of, target
from diredi_cli.main import run

Json = dict[str, Any]


def study_of(measure: Callable[[Json, Path], Json]) -> Study:
    """Two seeds of one form, whose figure is a number of its own."""

    def cells(options: Options) -> list[Cell]:
        return [Cell(f"seed-{seed}", {"seed": seed}) for seed in range(2)]

    def rows(metrics: dict[str, Json], options: Options) -> list[Json]:
        return rows_of([{"table": {"form": {"figure": metrics[f"seed-{seed}"]["figure"]}}} for seed in range(2)])

    def targets(rows: list[Json]) -> list[Json]:
        return [target("figure", rows[0]["figure"]["mean"], ">", 1)]

    return Study("toy", "a toy", cells, measure, rows, targets, lambda rows, title, path: None)


def test_a_study_that_was_stopped_goes_on_with_the_cells_that_are_missing(tmp_path: Path) -> None:
    asked: list[int] = []

    def measure(spec: Json, folder: Path) -> Json:
        asked.append(spec["seed"])
        if asked == [0, 1]:
            raise KeyboardInterrupt
        return {"figure": 10.0 * spec["seed"]}

    with pytest.raises(KeyboardInterrupt):
        run_study(study_of(measure), Options(), tmp_path, lambda done, cells: None)
    found = run_study(study_of(measure), Options(), tmp_path, lambda done, cells: None)
    assert asked == [0, 1, 1]
    assert found["rows"] == [
        {"table": "table", "form": "form", "figure": {"mean": 5, "low": 0, "high": 10, "seeds": [0, 10]}}
    ]
    assert found["targets"] == [{"name": "figure", "value": 5, "target": "> 1", "met": True}]
    assert not found["quick"]
    assert {"command", "machine", "commit"} < set(found)


def test_a_cell_of_another_recipe_is_measured_anew(tmp_path: Path) -> None:
    (tmp_path / "seed-0.json").write_text(json.dumps({"from": '{"seed": 7}', "made": {}}))
    found = run_study(study_of(lambda spec, folder: {"figure": 1.0}), Options(), tmp_path, lambda done, cells: None)
    assert found["rows"][0]["figure"]["seeds"] == [1, 1]


def seventh(spec: Json, folder: Path) -> Json:
    """A figure, and who found it, for workers that import this file."""
    (folder / f"{spec['seed']} by {os.getpid()}").touch()
    return {"figure": spec["seed"] / 7}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_workers_and_ray_find_what_one_process_finds_and_the_study_keeps_it(tmp_path: Path) -> None:
    found = []
    for name, chosen in {"one": Options(), "two": Options(workers=2), "ray": Options(ray="local")}.items():
        found.append(run_study(study_of(seventh), chosen, tmp_path / name, lambda done, cells: None))
        assert {path.name for path in (tmp_path / name).glob("*.json")} == {"seed-0.json", "seed-1.json"}
        here = {path.name for path in (tmp_path / name).glob(f"* by {os.getpid()}")}
        assert len(here) == (2 if name == "one" else 0)
        assert len(list((tmp_path / name).glob("* by *"))) == 2
    assert found[0]["rows"] == found[1]["rows"] == found[2]["rows"]


def test_a_ray_cluster_that_does_not_answer_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    assert run(["peers", "study", "--preset", "federated", "--quick", "--ray", "127.0.0.1:1"]) != 0
    said = capsys.readouterr().err
    assert "no Ray cluster answers at '127.0.0.1:1'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", sorted(STUDIES))
@pytest.mark.parametrize("quick", [True, False])
def test_no_two_cells_of_a_study_share_a_file(name: str, quick: bool) -> None:
    keys = [cell.key for cell in STUDIES[name].cells(Options(quick=quick, data=Path("data")))]
    assert len(set(keys)) == len(keys) > 1


@pytest.mark.slow
def test_the_command_measures_prints_and_writes_and_the_second_time_has_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["peers", "study", "--preset", "federated", "--quick", "--json"]
    assert run(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out) == first
    place = tmp_path / "bench" / "results" / "quick"
    assert json.loads((place / "federated.json").read_text()) == first
    assert (place / "federated.png").stat().st_size > 10_000
    assert first["quick"]
    assert {row["form"] for row in first["rows"]} >= {"fedavg", "scaffold", "alone"}


def test_an_unknown_study_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["peers", "study", "--preset", "nothing"]) == 2
    assert "dissimilarity" in capsys.readouterr().err
    assert run(["peers", "study", "--list"]) == 0
    assert set(STUDIES) <= set(capsys.readouterr().out.split())
