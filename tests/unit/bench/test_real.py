"""What the benchmark on real images says of a rival, and what its picture shows."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"
IMAGES = 40
RIVAL = "fine-tuning at the site, rate 0.0001"


@pytest.fixture(scope="module")
def real() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("real")


@pytest.fixture(scope="module")
def trade_picture(real: ModuleType) -> ModuleType:
    return importlib.import_module("trade_picture")


def cell(found: int, known: int, alarms: float):
    """Percent of the site's images and of the manufacturer's where a method finds the one box; and its false alarms."""
    forms = {"presumed": known, "site": found}
    matches = {
        f"{where}|{field}": value
        for where, percent in forms.items()
        for field, value in {
            "images": np.arange(IMAGES),
            "classes": np.full(IMAGES, int(where == "site")),
            "scores": np.linspace(0.9, 0.8, IMAGES),
            "right": np.arange(IMAGES) < IMAGES * percent / 100,
            "boxes": np.tile([int(where == "presumed"), int(where == "site")], (IMAGES, 1)),
        }.items()
    }
    tables = {"presumed": {"mAP50": known, "false alarms": alarms}, "new classes at the site": {"mAP50": found}}
    return {"tables": tables, "matches": matches}


def seed_of(folder: Path, cells):
    """One seed as `measure` returns it."""
    tables, files = {}, {}
    for number, (form, one) in enumerate(cells.items()):
        files[form] = str(folder / f"{number}.json")
        np.savez(folder / f"{number}.npz", **{f"{form}|{name}": array for name, array in one["matches"].items()})
        for table, columns in one["tables"].items():
            tables.setdefault(f"a site: {table}", {})[form] = columns
    classes = {"presumed": [0], "new classes at the site": [1]}
    return {"scenario": "a site", "tables": tables, "files": files, "classes": classes, "commits": ["c"]}


@pytest.mark.parametrize(
    ("ours", "rival", "verdict"),
    [
        ((90, 60, 0.0), (30, 60, 0.0), "DiReDi better"),
        ((90, 60, 6.0), (30, 60, 0.0), "nobody can say"),
        ((90, 58, 0.0), (30, 60, 0.0), "nobody can say"),
        ((62, 60, 0.0), (60, 60, 0.0), "nobody can say"),
        ((30, 60, 0.0), (90, 60, 0.0), "rival better"),
        ((30, 60, 0.0), (90, 60, 6.0), "nobody can say"),
        ((30, 60, 0.0), (90, 50, 0.0), "DiReDi better"),
    ],
    ids=[
        "more is learned",
        "but found where there is none",
        "but more than a point is forgotten",
        "by no more than other images would change",
        "the rival learns more",
        "but finds it where there is none",
        "but forgets more, so that release 1 is its best point",
    ],
)
def test_better_is_who_learns_more_beyond_chance_and_does_no_harm(real: ModuleType, tmp_path, ours, rival, verdict):
    cells = {"release 1": cell(0, 60, 0.0), "DiReDi": cell(*ours), RIVAL: cell(*rival)}
    rows, _ = real.compare([seed_of(tmp_path, cells)])
    (found,) = [row for row in rows if "verdict" in row]
    assert (found["form"], found["verdict"]) == ("fine-tuning at the site", verdict)


def test_the_tutor_alone_is_judged_by_its_share_of_the_gain(real: ModuleType, tmp_path: Path):
    cells = {"release 1": cell(10, 60, 0), "DiReDi": cell(90, 60, 0), "DiReDi, no student gap": cell(66, 60, 0)}
    _, targets = real.compare([seed_of(tmp_path, cells)])
    (found,) = [one for one in targets if "no student gap" in one["name"]]
    assert found["value"] == pytest.approx(70)
    assert found["met"]


def test_the_line_of_a_rival_is_the_ground_that_it_covers(real: ModuleType, trade_picture: ModuleType, tmp_path: Path):
    points = {"0.5 of it": (40, 58), "0.75 of it": (35, 55), "whole": (80, 50), "other": (90, 45)}
    cells = {"release 1": cell(0, 60, 0.0), "DiReDi": cell(70, 60, 0.0)}
    cells |= {f"fine-tuning, rate 1, {share}": cell(*found, 0.0) for share, found in points.items()}
    rows, _ = real.compare([seed_of(tmp_path, cells)])
    (axis, *_) = trade_picture.draw_trades(rows).axes
    (line,) = axis.get_lines()
    assert line.get_xydata().tolist() == [[0, 0], [2, 40], [10, 80], [10, 80]]
    (row,) = [row for row in rows if row["table"].endswith("trade") and row["form"] == "fine-tuning"]
    assert row["area"]["mean"] == pytest.approx(32)
    assert row["point"] == "release 1"
