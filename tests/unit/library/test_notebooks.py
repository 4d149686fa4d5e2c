"""The notebooks of `examples/` run from top to bottom on tiny data, each in a kernel of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
RUN = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=280, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parent)])
    folder = str(tmp_path_factory.mktemp("examples"))
    return {**os.environ, "DIREDI_TINY": "1", "DIREDI_EXAMPLES": folder, "PYTHONPATH": path}


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws(notebook: Path, environment: dict[str, str], tmp_path: Path) -> None:
    made = tmp_path / notebook.name
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(notebook), str(made)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(made, as_version=4).cells
    drawn = [out for cell in cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(drawn) >= 2


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_its_outputs(notebook: Path) -> None:
    assert not [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.get("outputs")]
