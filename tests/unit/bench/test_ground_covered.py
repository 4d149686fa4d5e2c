"""What a method learns at no more forgetting, as one number."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([(0.0, 40.0)], 40.0),
        ([(-3.0, 40.0)], 40.0),
        ([(0.0, 0.0), (5.0, 80.0)], 40.0),
        ([(0.0, 20.0), (5.0, 80.0), (8.0, 10.0)], 50.0),
        ([(2.0, 50.0), (12.0, 90.0)], 40.0),
        ([], 0.0),
    ],
)
def test_the_ground_covered_is_the_mean_of_the_best_at_no_more_forgetting(points, area):
    spec = importlib.util.spec_from_file_location("bench_ground_covered", ROOT / "bench" / "ground_covered.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.ground_covered(points) == pytest.approx(area)
