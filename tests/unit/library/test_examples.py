"""Every script of `examples/` runs on tiny data and says something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"
SAID = {
    "camera_without_labels": "boxes that nobody drew",
    "federated_baseline": "bytes up so far",
    "one_cycle": "student after: mAP50",
    "own_loss": "squared_scores",
    "own_merge": "first_site_decides",
    "own_video_source": "the source is closed",
    "peers_without_cloud": "peer 0 after round 2",
}
ELSEWHERE = {"read_edge_node"}
"""In tests/services/edge: it needs an edge node."""
DRIVER = """
import contextlib, io, json, runpy, sys
said = {}
for name in sys.argv[1:]:
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        runpy.run_path(f"examples/{name}.py", run_name="__main__")
    said[name] = heard.getvalue()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each script prints; all run in one process, so that torch is loaded once."""
    path = os.pathsep.join([str(EXAMPLES), str(ROOT)])
    tiny = {"DIREDI_TINY": "1", "DIREDI_EXAMPLES": str(tmp_path_factory.mktemp("examples")), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *SAID],
        cwd=ROOT, env={**os.environ, **tiny}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_no_example_is_left_out() -> None:
    there = {path.stem for path in EXAMPLES.glob("*.py")} - {"world"}
    assert there == set(SAID) | ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("name", SAID)
def test_an_example_runs_and_prints_what_it_is_about(name: str, said: dict[str, str]) -> None:
    assert SAID[name] in said[name]


def test_examples_are_short() -> None:
    assert max(len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")) <= 60
