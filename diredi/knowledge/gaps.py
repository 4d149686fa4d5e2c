"""What an extraction gives: the tutor's gap, the student's, and what the site measured on the way. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from diredi.config import Config
from diredi.errors import CorruptData, NotFound
from diredi.evaluation.metrics import DetectionMetrics
from diredi.knowledge.gap import Gap
from diredi.knowledge.lambda_search import Score
from diredi.store.blobs import digest_of_file
from diredi.store.files import atomic_write, make_folder


class Decision(Config):
    """One thing that a site has decided, for the manifest and the report."""

    subject: str
    """What was decided: "form", "tutor epochs", "student epochs", "speaks for"."""
    choice: str
    """What was chosen."""
    because: str
    """The measurement that decided it, as part of a sentence."""


class ExtractionMetrics(Config):
    """What a site measures while it extracts a gap: counts, qualities and seconds, and nothing about any one image.

    Qualities are those on the site's held-out images (`val`).
    """

    train_images: int
    """Images of the site that taught tutor and student: the weight of its gap where several are merged."""
    held_out_images: int
    """Images that the qualities below were measured on."""
    boxes: dict[str, int]
    """Labelled boxes of each class in the training images."""
    student_before: DetectionMetrics
    """The deployed student."""
    tutor_after: DetectionMetrics
    """The tutor that has learned the site (tutor 2)."""
    student_after: DetectionMetrics | None = None
    """The site's own student; None where the recipe wants no student gap."""
    decisions: tuple[Decision, ...] = ()
    """What the site has decided for itself, and why."""
    scores: tuple[Score, ...] = ()
    """What each candidate lambda would do at this site; empty where the recipe does not search by it."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Wall-clock seconds of each step, in the order of the steps."""


@dataclass(frozen=True)
class Gaps:
    """The knowledge gaps of one site, as the cloud would receive them.

    Weights in them have been through the codec of the recipe, so that what is tried here is what would travel.

    Examples:
        >>> import diredi
        >>> gaps = diredi.extract_gap(tutor, student, site)                  # doctest: +SKIP
        >>> gaps.save("gaps/site-1")                                         # doctest: +SKIP
        >>> diredi.Gaps.load("gaps/site-1").metrics.tutor_after.map50        # doctest: +SKIP
        0.71
    """

    tutor: Gap
    """To the tutor that was given."""
    student: Gap | None
    """To the student that was given; None where the recipe wants none."""
    metrics: ExtractionMetrics

    def save(self, folder: Path | str) -> None:
        """Write `tutor.gap`, `student.gap` where there is one, and `metrics.json`.

        `metrics.json` is written last and names the digests of the others, so that what was interrupted is noticed.

        Args:
            folder: Where the files go; made where it does not exist. Gaps of an earlier `save` are replaced.
        """
        folder = Path(folder)
        make_folder(folder)
        (folder / _METRICS).unlink(missing_ok=True)
        (folder / "student.gap").unlink(missing_ok=True)
        index = _Index(
            tutor=self.tutor.save(folder / "tutor.gap"),
            student=None if self.student is None else self.student.save(folder / "student.gap"),
            metrics=self.metrics,
        )
        atomic_write(folder / _METRICS, json.dumps(index.model_dump(mode="json"), indent=1))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote.

        Args:
            folder: The folder that `save` was given.

        Returns:
            Gaps and metrics; the gaps have the very bytes that were saved.

        Raises:
            NotFound: There are no gaps in that folder.
            CorruptData: A file is damaged, or belongs to another extraction.
        """
        folder = Path(folder)
        try:
            index = _Index.model_validate(json.loads((folder / _METRICS).read_text()))
        except OSError:
            raise NotFound(f"{folder} holds no {_METRICS}: name a folder that `Gaps.save` has written") from None
        except (ValueError, ValidationError) as error:
            raise CorruptData(f"{folder / _METRICS} cannot be read ({error}): save the gaps again") from None
        tutor = _load(folder / "tutor.gap", index.tutor)
        student = None if index.student is None else _load(folder / "student.gap", index.student)
        return cls(tutor, student, index.metrics)


_METRICS = "metrics.json"


class _Index(Config):
    """What `metrics.json` holds: the digest of each gap's file, and the metrics."""

    tutor: str
    student: str | None
    metrics: ExtractionMetrics


def _load(path: Path, digest: str) -> Gap:
    gap = Gap.load(path)
    if digest_of_file(path).digest != digest:
        raise CorruptData(f"{path} is not the file that was saved beside its {_METRICS}: save the gaps again")
    return gap
