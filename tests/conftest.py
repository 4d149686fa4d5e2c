"""What every kind of test may use."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is loaded, and for every process that a test starts: threads of one operator wait for each other in a
# spin, and where another program has a core that makes a small training many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# What the user's terminal or continuous integration wants of pytest is not what the output under test should be.
for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
    os.environ.pop(name, None)

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, so that a defect shows early; whole cycles and containers, which take minutes, last."""
    order = {"unit": 0, "services": 1, "e2e": 2, "containers": 3}

    def rank(item: pytest.Item) -> int:
        parts = item.path.relative_to(ROOT / "tests").parts
        return order.get(parts[0], 0)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and weights that stand beside the checkout on machines of the project; the test skips elsewhere."""
    folder = Path(os.environ.get("DIREDI_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist: real images and weights are not part of the repository")
    return folder
