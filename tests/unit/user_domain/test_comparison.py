"""What differs between two releases on one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diredi.data.dataset import Sample
from user_domain.comparison_job import CompareResult, Named, _compare

NAMES = ("car", "forklift")


def found(*boxes: tuple[str, float]) -> Named:
    """Boxes of a fifth of the picture, by class and left edge."""
    return [(name, np.array([left, 0.4, left + 0.2, 0.6])) for name, left in boxes]


def test_each_object_counts_once_and_a_box_of_another_class_is_a_false_alarm() -> None:
    labelled = np.array([[0, 0.1, 0.5, 0.2, 0.2], [1, 0.5, 0.5, 0.2, 0.2]], np.float32)
    before = found(("car", 0.0), ("car", 0.01), ("car", 0.4), ("forklift", 0.8))
    after = found(("forklift", 0.41), ("forklift", 0.79))
    image = _compare(Sample(Path("a.jpg"), labelled), NAMES, [before, after])
    assert [(box.name, box.before, box.after) for box in image.objects] == [
        ("car", True, False), ("forklift", False, True),
    ]  # fmt: skip
    alarms = sorted((box.name, box.before, box.after) for box in image.false_alarms)
    assert alarms == [("car", True, False), ("car", True, False), ("forklift", True, True)]
    assert image.flips == 4
    result = CompareResult(images=[image])
    assert result.count(before=False, after=True, name="forklift") == result.count(before=True, after=False) == 1
    assert (result.false_alarms(after=False), result.false_alarms(after=True)) == (3, 1)
