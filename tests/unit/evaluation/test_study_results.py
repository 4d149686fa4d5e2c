"""What results say of the code that made them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from diredi.evaluation import study_results


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit of a module and of a benchmark's results."""
    monkeypatch.setattr(study_results, "_ROOT", tmp_path)
    for name in ("module.py", "bench/results/peers.json", "docs/results/update.svg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as committed\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_results_name_the_commit_and_whether_its_code_was_changed(checkout: Path) -> None:
    found = study_results.commit()
    assert len(found) >= 7 and "-" not in found
    (checkout / "module.py").write_text("changed\n")
    assert study_results.commit() == f"{found}-dirty"


def test_results_of_one_benchmark_do_not_make_the_code_of_the_next_another(checkout: Path) -> None:
    found = study_results.commit()
    for name in ("bench/results/peers.json", "docs/results/update.svg"):
        (checkout / name).write_text("measured\n")
    assert study_results.commit() == found


def test_where_there_is_no_history_the_version_stands_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_results, "_ROOT", tmp_path)
    assert study_results.commit().startswith("version ")
