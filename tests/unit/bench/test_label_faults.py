"""Faults that a benchmark puts into labels, and how an audit of them is scored."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from diredi.boxes import box_iou
from diredi.data.dataset import Dataset, Sample
from diredi.evaluation.label_findings import LabelAudit, LabelFinding

BENCH = Path(__file__).resolve().parents[3] / "bench"
NAMES = ("car", "person", "crane")


@pytest.fixture(scope="module")
def label_faults() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("label_faults")


def right(images: int = 60) -> Dataset:
    """Two labels in each image, left and right."""
    rows = [[[n % 3, 0.2, 0.3, 0.2, 0.2], [(n + 1) % 3, 0.8, 0.3, 0.2, 0.2]] for n in range(images)]
    samples = [Sample(Path(f"{n}.jpg"), np.array(row, np.float32)) for n, row in enumerate(rows)]
    return Dataset(Path(), NAMES, samples, [])


def corners(row: np.ndarray) -> np.ndarray:
    return np.concatenate([row[1:3] - row[3:] / 2, row[1:3] + row[3:] / 2])


def test_each_kind_of_fault_is_what_it_says_and_as_frequent_as_asked(label_faults: ModuleType):
    for kind in label_faults.FAULTS:
        data, faults = label_faults.with_faults(right(), (kind,), 0.3, seed=0)
        assert 20 <= len(faults) <= 52, "30 percent of 120"
        boxes = {sample.image: sample.boxes for sample in data.train}
        for fault in faults:
            row = None if fault.number is None else boxes[fault.image][fault.number]
            if kind == "wrong class":
                assert row[0] != fault.right[0] and row[1:] == pytest.approx(fault.right[1:])
            elif kind == "misplaced":
                assert row[0] == fault.right[0]
                assert 0.1 <= box_iou(corners(row), corners(fault.right)[None])[0] <= 0.51
            elif kind == "missing":
                assert row is None and not (boxes[fault.image] == fault.right).all(1).any()
            else:
                assert row == pytest.approx(fault.right) and fault.number >= 2
        again, _ = label_faults.with_faults(right(), (kind,), 0.3, seed=0)
        assert all((a.boxes == b.boxes).all() for a, b in zip(data.train, again.train, strict=True))


def finding(fault, kind: str, seen: str | None, box=(0.0, 0.0, 1.0, 1.0)) -> LabelFinding:
    return LabelFinding(
        kind=kind, score=0.9, image=fault.image, split="train", image_size=(100, 100), number=fault.number, seen=seen,
        box=None if fault.number is None else box, label=None if fault.number is None else "car", seen_box=box,
    )  # fmt: skip


def audit(*findings: LabelFinding) -> LabelAudit:
    return LabelAudit(findings=findings, per_class={}, images=60, boxes=120, models=1)


def test_an_audit_that_finds_every_fault_and_nothing_else_scores_100(label_faults: ModuleType):
    for kind in label_faults.FAULTS:
        _, faults = label_faults.with_faults(right(), (kind,), 0.1, seed=1)
        found = []
        for fault in faults:
            box = tuple(float(100 * value) for value in corners(fault.right))
            found.append(finding(fault, kind, None if kind == "nothing there" else NAMES[int(fault.right[0])], box))
        scores = label_faults.scored(audit(*found), audit(), faults, (kind,), NAMES)
        for name in ("recall", "precision", "precision, new", "right proposal"):
            assert scores[name] == 100, (kind, name)


def test_what_was_found_before_counts_against_precision_and_not_against_that_of_new_findings(label_faults: ModuleType):
    _, faults = label_faults.with_faults(right(), ("wrong class",), 0.1, seed=1)
    hit, other = finding(faults[0], "wrong class", "bus"), faults[0]
    elsewhere = finding(label_faults.Fault(Path("none.jpg"), "wrong class", other.right, 0), "wrong class", "bus")
    scores = label_faults.scored(audit(hit, elsewhere), audit(elsewhere), faults, ("wrong class",), NAMES)
    assert scores["recall"] == pytest.approx(100 / len(faults))
    assert (scores["precision"], scores["precision, new"], scores["right proposal"]) == (50, 100, 0)
