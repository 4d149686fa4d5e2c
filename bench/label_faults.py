"""Labels with faults that are known, and what an audit finds of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from report import Json

from diredi.boxes import box_iou
from diredi.data.dataset import Dataset, Sample
from diredi.evaluation.label_findings import FindingKind, LabelAudit, LabelFinding

FaultKind = Literal["wrong class", "missing", "misplaced", "nothing there"]
FAULTS: tuple[FaultKind, ...] = ("wrong class", "missing", "misplaced", "nothing there")
SHIFT = (0.35, 0.7)
"""How far a misplaced box is moved, in shares of its sides: its overlap (IoU) with the object is then 0.1 to 0.5."""
_TRIES = 50

Row = NDArray[np.float32]


@dataclass(frozen=True)
class Fault:
    """A fault that was put into a label."""

    image: Path
    kind: FaultKind
    right: Row
    """The row of the label before; of a label where nothing is, the row that was added."""
    number: int | None
    """Which row of the image it is now; None if it is missing."""


def with_faults(data: Dataset, kinds: Sequence[FaultKind], share: float, seed: int) -> tuple[Dataset, list[Fault]]:
    """Put faults into the labels of `train`.

    Args:
        data: The data set, whose labels are taken to be right.
        kinds: Kinds of fault; each fault is of one of them, all alike often.
        share: Share of the labels that get a fault; for "nothing there", of the labels that are added.
        seed: Equal seeds give equal faults.

    Returns:
        The data set, and the faults.
    """
    random = np.random.default_rng(seed)
    rows = np.concatenate([sample.boxes for sample in data.train])
    faults: list[Fault] = []
    train = [_faulty(sample, rows, kinds, share, random, faults) for sample in data.train]
    return replace(data, train=train), faults


def _faulty(
    sample: Sample,
    rows: Row,
    kinds: Sequence[FaultKind],
    share: float,
    random: np.random.Generator,
    faults: list[Fault],
) -> Sample:
    boxes: list[Row] = []
    added: list[Row] = []
    for right in sample.boxes:
        kind = kinds[int(random.integers(len(kinds)))] if random.random() < share else None
        row = right.copy()
        if kind == "wrong class":
            row[0] = random.choice([one for one in np.unique(rows[:, 0]) if one != right[0]])
        elif kind == "misplaced":
            row[1:] = _moved(right[1:], random)
        elif kind == "nothing there":
            added += _elsewhere(sample.boxes, rows, random)
        if kind != "missing":
            boxes.append(row)
        if kind is not None and kind != "nothing there":
            faults.append(Fault(sample.image, kind, right, None if kind == "missing" else len(boxes) - 1))
    for number, row in enumerate(added, len(boxes)):
        faults.append(Fault(sample.image, "nothing there", row, number))
    return replace(sample, boxes=np.array([*boxes, *added], np.float32).reshape(-1, 5))


def _moved(box: Row, random: np.random.Generator) -> Row:
    """A box moved in any direction, as far as it is in the image."""
    angle = random.uniform(0, 2 * np.pi)
    centre = box[:2] + random.uniform(*SHIFT) * box[2:] * (np.cos(angle), np.sin(angle))
    low, high = np.clip(centre - box[2:] / 2, 0, 1), np.clip(centre + box[2:] / 2, 0, 1)
    return np.concatenate([(low + high) / 2, high - low]).astype(np.float32)


def _elsewhere(boxes: Row, rows: Row, random: np.random.Generator) -> list[Row]:
    """A label of the set at a place of the image where no label is, or none if there is no such place."""
    for _ in range(_TRIES):
        row = rows[random.integers(len(rows))].copy()
        row[1:3] = random.uniform(row[3:] / 2, 1 - row[3:] / 2)
        if box_iou(_corners(row), np.array([_corners(other) for other in boxes])).max(initial=0) < 0.1:
            return [row]
    return []


def _corners(row: Row) -> Row:
    return np.concatenate([row[1:3] - row[3:] / 2, row[1:3] + row[3:] / 2])


def scored(
    audit: LabelAudit, before: LabelAudit, faults: Sequence[Fault], kinds: Sequence[FaultKind], names: Sequence[str]
) -> Json:
    """Compare an audit with the faults that were put in.

    Args:
        audit: What was found in the labels with faults.
        before: What was found in the labels as they were, whose own faults nobody knows.
        faults: The faults.
        kinds: The kinds of fault that were put in; only findings of these kinds are counted.
        names: Class names of the data set.

    Returns:
        Percent: how many of the faults were found as what they are ("recall"); how many findings point at one
        ("precision"), the same without what was found before ("precision, new"); for how many of those found the models
        propose what the label was ("right proposal"). Numbers: faults, findings.
    """
    at: dict[Path, list[Fault]] = {}
    for fault in faults:
        at.setdefault(fault.image, []).append(fault)
    findings = [found for found in audit.findings if found.kind in kinds]
    pairs = [(found, next((f for f in at.get(found.image, ()) if _is(found, f, names)), None)) for found in findings]
    known = {_key(found) for found in before.findings}
    hits = [(found, fault) for found, fault in pairs if fault is not None]
    new = [fault is not None for found, fault in pairs if fault is not None or _key(found) not in known]
    return {
        "faults": float(len(faults)),
        "findings": float(len(findings)),
        "recall": 100 * len({id(fault) for _, fault in hits}) / max(len(faults), 1),
        "precision": 100 * len(hits) / max(len(findings), 1),
        "precision, new": 100 * float(np.mean(new)) if new else 0.0,
        "right proposal": 100 * float(np.mean([_proposes(*hit, names) for hit in hits])) if hits else 0.0,
    }


def _is(found: LabelFinding, fault: Fault, names: Sequence[str]) -> bool:
    """Whether a finding points at a fault, by its place and kind."""
    kind: FindingKind = fault.kind
    if found.kind != kind:
        return False
    return found.number == fault.number if fault.number is not None else _proposes(found, fault, names)


def _proposes(found: LabelFinding, fault: Fault, names: Sequence[str]) -> bool:
    """Whether what the models see is what the label was: its class, and at an overlap of half or more its box."""
    if fault.kind == "nothing there":
        return True
    size = np.array([*found.image_size, *found.image_size])
    overlap = box_iou(np.array(found.seen_box), (_corners(fault.right) * size).astype(np.float64)[None])[0]
    return found.seen == names[int(fault.right[0])] and bool(overlap >= 0.5)


def _key(found: LabelFinding) -> tuple[object, ...]:
    box = found.box or found.seen_box or ()
    return (found.image, found.kind, found.label, found.seen, *np.round(box))
