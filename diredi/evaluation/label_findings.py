"""What a label audit finds, as values: findings, the numbers of each class, and the data set corrected by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from diredi.data.dataset import Dataset, Sample, Split
from diredi.errors import InvalidInput

if TYPE_CHECKING:
    from pandas import DataFrame

FindingKind = Literal["wrong class", "missing", "misplaced", "nothing there", "duplicate"]
KINDS: Final[tuple[FindingKind, ...]] = get_args(FindingKind)

_FEW = 12
"""Classes of which a person reads a whole table."""

Corners = tuple[float, float, float, float]


class LabelFinding(BaseModel):
    """A label that is probably wrong, or an object that probably lacks one.

    Boxes are x1, y1, x2, y2 in pixels of the image.

    Attributes:
        kind: "wrong class": the models are sure of another class on the label. "missing": they are sure of an object
            that has no label. "misplaced": they find the class beside the label. "nothing there": they find nothing at
            the label, though they find nearly all labels of this class and size. "duplicate": another label is on the
            same object.
        score: How sure the models are that this is a fault, 0 to 1.
        image: File of the image.
        split: Which split the image is in, "train" or "val".
        image_size: Width and height of the image in pixels.
        label: Class of the label; None if the label is missing.
        box: Box of the label; None if the label is missing.
        number: Which of the image's boxes it is, counted from 0 (`Sample.boxes`); None if the label is missing.
        belief: How sure the most favourable model is that the label is right, 0 to 1.
        seen: Class that the models see; of a duplicate, that of the other label; None if they see nothing.
        seen_box: Box that they see, or that of the other label; None if they see nothing.
        confidence: How sure they are of what they see, on the mean of those that know the class, 0 to 1.
    """

    model_config = ConfigDict(frozen=True)

    kind: FindingKind
    score: float
    image: Path
    split: Split
    image_size: tuple[int, int]
    label: str | None = None
    box: Corners | None = None
    number: int | None = None
    belief: float = 0.0
    seen: str | None = None
    seen_box: Corners | None = None
    confidence: float = 0.0

    @property
    def name(self) -> str:
        """The class that the finding is counted for: that of the label, or of the object that lacks one."""
        return self.label or self.seen or ""

    def __str__(self) -> str:
        """Return what is wrong as a person would say it."""
        sure = f"{100 * self.confidence:.0f} %"
        return {
            "wrong class": f"{self.label} is probably {self.seen} ({sure})",
            "missing": f"{self.seen} has no label ({sure})",
            "misplaced": f"{self.label} is probably not where its label is ({sure})",
            "nothing there": f"no model sees {self.label} or anything else",
            "duplicate": f"{self.label} has a second label, {self.seen}",
        }[self.kind]


class ClassAudit(BaseModel):
    """How an audit went for one class.

    Attributes:
        boxes: How many labels of the class there are.
        known_by: How many of the models know the class. If none does, only duplicates can be found.
        believed: Share of the labels that a model believes, 0 to 1: how much the audit can find for this class.
        seen: How many objects of the class the models see in all images.
        agreed: Share of these on which there is a label of the class, 0 to 1. Scores are multiplied by it, so that a
            class that the models often see where people do not label it cannot crowd out the others.
        findings: How many findings of each kind there are; a kind without one is left out.
    """

    model_config = ConfigDict(frozen=True)

    boxes: int
    known_by: int
    believed: float
    seen: int
    agreed: float
    findings: dict[FindingKind, int]


class LabelAudit(BaseModel):
    """The labels of a data set that are probably wrong, the surest first.

    Attributes:
        findings: What was found, by falling score.
        per_class: How the audit went for each class, by name, in the order of their ids.
        images: How many images were looked at.
        boxes: How many labels they have.
        models: How many models looked.
    """

    model_config = ConfigDict(frozen=True)

    findings: tuple[LabelFinding, ...]
    per_class: dict[str, ClassAudit]
    images: int
    boxes: int
    models: int

    @property
    def not_audited(self) -> tuple[str, ...]:
        """Classes with labels that no model knows, such as a site's new class: nobody could say what is wrong."""
        return tuple(name for name, found in self.per_class.items() if found.boxes and not found.known_by)

    @property
    def not_labelled(self) -> dict[str, int]:
        """Classes that the data set names and never labels, with the number of objects that the models see.

        Such a class is told once, instead of as hundreds of missing labels.
        """
        return {name: found.seen for name, found in self.per_class.items() if found.seen and not found.boxes}

    def classes_to_show(self) -> dict[str, ClassAudit]:
        """Return the classes of the data: all of a few, and of many those with findings or that no model knows."""
        shown = {name: one for name, one in self.per_class.items() if one.boxes or one.seen}
        if len(shown) <= _FEW:
            return shown
        return {name: one for name, one in shown.items() if one.findings or name in self.not_audited}

    def counts(self) -> dict[FindingKind, int]:
        """Return the number of findings of each kind."""
        return {kind: sum(found.kind == kind for found in self.findings) for kind in KINDS}

    def notes(self) -> list[str]:
        """Return what a person should know about classes that could not be audited: a sentence each."""
        notes = []
        if self.not_audited:
            notes.append(
                f"no model knows {', '.join(self.not_audited)}: of such labels only duplicates are found, so look at "
                "them yourself"
            )
        for name, seen in self.not_labelled.items():
            notes.append(
                f"no {name} is labelled, and the models see {seen}: label them, or take the class out of `names`"
            )
        return notes

    def __str__(self) -> str:
        """Return the counts as one line."""
        counts = ", ".join(f"{count} {kind}" for kind, count in self.counts().items() if count) or "no findings"
        return f"{counts} in {self.boxes} labels of {self.images} images"

    def corrected(self, data: Dataset, splits: Sequence[Split] = ("train",)) -> Dataset:
        """Return the data set as it would be if the models were right in every finding; nothing is written.

        A wrong class becomes the one that is seen, a misplaced box moves, a missing one is added; a label where nothing
        is, and a duplicate, is left out. It serves to learn before anybody has looked at the findings. What is measured
        on should be corrected by people alone, so `val` is left as it is unless it is named.

        Args:
            data: The data set that was audited.
            splits: Which splits to correct.

        Raises:
            InvalidInput: The data set lacks a box or a class that a finding names, so it is another one.
        """
        findings: dict[tuple[Split, Path], list[LabelFinding]] = {}
        for found in self.findings:
            findings.setdefault((found.split, found.image), []).append(found)

        def split_corrected(split: Split) -> list[Sample]:
            samples = data.split(split)
            if split not in splits:
                return samples
            return [_corrected(sample, findings.get((split, sample.image), ()), data.names) for sample in samples]

        return replace(data, train=split_corrected("train"), val=split_corrected("val"))

    def to_pandas(self) -> DataFrame:
        """Return the findings as a table.

        Returns:
            A pandas DataFrame with one row for each finding and the attributes of `LabelFinding` as columns.

        Raises:
            InvalidInput: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise InvalidInput("pandas is not installed: run `pip install pandas`") from None
        rows = [found.model_dump() for found in self.findings]
        return pd.DataFrame(rows, columns=list(LabelFinding.model_fields))

    def write_html(self, path: Path | str, source: str = "", most: int = 60) -> None:
        """Write a page with a picture of each finding: one file that needs no network.

        It has pieces of the images in it, so it belongs where they are.

        Args:
            path: The file; one that is there is replaced.
            source: Which data set it was, for the title.
            most: How many findings of each kind are shown, the surest first.

        Raises:
            DatasetError: An image cannot be read any more.
        """
        from diredi.evaluation.audit_page import write_audit_page

        write_audit_page(self, Path(path), source, most)


def _corrected(sample: Sample, findings: Sequence[LabelFinding], names: Sequence[str]) -> Sample:
    boxes, left_out, added = sample.boxes.copy(), set[int](), list[NDArray[np.float32]]()
    for found in findings:
        lacks_box = found.number is not None and found.number >= len(boxes)
        if lacks_box or {found.label, found.seen} - {*names, None}:
            raise InvalidInput(
                f"{sample.image} has no such label as the audit says ({found}): audit this data set anew"
            )
        if found.number is None:
            added.append(_row(found, names))
        elif found.kind == "wrong class":
            boxes[found.number, 0] = names.index(found.seen or "")
        elif found.kind == "misplaced":
            boxes[found.number] = _row(found, names)
        else:
            left_out.add(found.number)
    kept = np.delete(boxes, sorted(left_out), axis=0)
    return replace(sample, boxes=np.concatenate([kept, *added]).astype(np.float32))


def _row(found: LabelFinding, names: Sequence[str]) -> NDArray[np.float32]:
    """What the models see, as a row of `Sample.boxes`: 1 x 5."""
    corners = np.array(found.seen_box, np.float64) / (*found.image_size, *found.image_size)
    low, high = corners[:2], corners[2:]
    row = np.concatenate([[names.index(found.seen or "")], (low + high) / 2, high - low])
    return row.astype(np.float32)[None]
