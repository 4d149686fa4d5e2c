"""Which architectures the contract of a detector is tested for."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def of_families(*names: str) -> list:
    """Architectures to run a test for; skipped where a package that the family needs is not installed."""
    missing = find_spec("libreyolo") is None
    mark = pytest.mark.skipif(missing, reason="libreyolo is not installed: python3 deploy/setup.py --groups libreyolo")
    return [pytest.param(name, marks=mark if name.startswith("libreyolo") else ()) for name in names]


SMALL = of_families("yolo11-w0.0625", "yolo11-w0.0625-gn", "libreyolo9-w0.0625")
