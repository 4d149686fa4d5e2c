from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture
def ray_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers find what these tests define, and its token is not kept in the home folder."""
    pytest.importorskip("ray")
    (tmp_path / "token").write_text("0" * 64)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
