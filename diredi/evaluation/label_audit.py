"""Find labels that are probably wrong by what detectors see in the images.

Detectors that have not learned from these labels look at each image. A label that every one of them contradicts is
probably wrong, and an object that all of them are sure of and that has no label was probably forgotten. The kinds of
fault are those of Tkachenko, Thyagarajan, Mueller, "ObjectLab: automated diagnosis of mislabeled images in object
detection data", 2023, arXiv 2309.00832. There an image has a score. Here each fault has a place, a score, and what the
detectors say of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from diredi.boxes import box_iou
from diredi.data.dataset import SPLITS, Dataset, Sample, Split
from diredi.data.images import read_image
from diredi.detectors.predictor import Detections, Predictor
from diredi.distillation.ensemble import weighted_boxes_fusion
from diredi.errors import InvalidInput
from diredi.evaluation.label_findings import KINDS, ClassAudit, Corners, FindingKind, LabelAudit, LabelFinding
from diredi.labels import matching_ids
from diredi.progress import OnProgress, report

STEP = "audit"
LEAST: Final[dict[FindingKind, float]] = {
    "wrong class": 0.2,
    "missing": 0.3,
    "misplaced": 0.2,
    "nothing there": 0.8,
    "duplicate": 0.8,
}
"""Scores from which there is a finding: `make bench-sites` measures what they give."""
SURE = 0.25
"""Confidence from which a detection counts as an object that the models see: what an edge node reports."""
SAME = 0.5
"""Overlap (IoU) from which a detection is about the object of a label."""
NEAR = 0.1
"""Overlap from which a detection may be about an object whose label is misplaced."""
FAINTEST = 0.02
"""Confidence from which detections are looked at: a faint one is enough to doubt that nothing is there."""
WORST = 0.5
"""The audit assumes that at least this share of the labels of a class is right."""
NEIGHBOURS = 15
"""So many smaller and so many larger labels of its class say whether the models would see the object of a label."""
_AT_ONCE = 16  # images in memory

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """What models see in one image."""

    size: tuple[int, int]
    """Width and height of the image in pixels."""
    answers: tuple[Detections, ...]
    """Of each model; classes are ids of the data set, and those that it lacks are left out."""
    found: Detections
    """All of these, fused."""

    @classmethod
    def of(cls, size: tuple[int, int], answers: Sequence[Detections], known: NDArray[np.bool_]) -> Self:
        """Fuse what several models see.

        Args:
            size: Width and height of the image in pixels.
            answers: Of each model; classes are ids of the data set.
            known: bool [models, classes]: which model knows which class.
        """
        return cls(size, tuple(answers), answers[0] if len(answers) == 1 else _fused(answers, known))


@dataclass(frozen=True)
class Observation:
    """What the labels and the models say of one image."""

    image: Path
    split: Split
    size: tuple[int, int]
    """Width and height of the image in pixels."""
    labels: Floats
    """n x 5: class id, x1, y1, x2, y2 in pixels."""
    found: Detections
    """Detections of all models, fused; classes are ids of the labels."""
    overlaps: Floats
    """n x detections: IoU of each label with each of `found`."""
    belief: Floats
    """n: the highest confidence that any one model has in the label."""
    near: Floats
    """n: the highest confidence that any one model has in anything at or near the label."""

    @cached_property
    def same(self) -> NDArray[np.bool_]:
        """N x detections: whether label and detection are of one class."""
        return np.asarray(self.labels[:, :1] == self.found.classes)

    @cached_property
    def explained(self) -> NDArray[np.bool_]:
        """Whether there is a label of its class on each detection."""
        return np.asarray((self.same & (self.overlaps >= SAME)).any(0))


def audit_labels(
    models: Predictor | Sequence[Predictor],
    data: Dataset,
    *,
    splits: Sequence[Split] = SPLITS,
    on_progress: OnProgress | None = None,
) -> LabelAudit:
    """Find the labels of a data set that are probably wrong, by what detectors see in its images.

    To be believed a label needs one model; to be contradicted it needs all of those that know the class, for their
    confidences are averaged. A fault in a label is found only by a model that has not learned it, so name models that
    have not been trained on this data set, such as the deployed student and the tutor. Classes go by their names.
    Nothing is written.

    Args:
        models: A detector, an exported one, a `TTAPredictor`, or several of these; they may know different classes.
        data: The data set.
        splits: Which splits to look at.
        on_progress: Hears of the step "audit".

    Returns:
        The findings, the surest first, and for each class how much of it the models believe.

    Raises:
        InvalidInput: There is no model, no image, or a model knows no class of the data.
        DatasetError: An image cannot be read.

    Examples:
        >>> import diredi
        >>> audit = diredi.audit_labels([student, tutor], site)                 # doctest: +SKIP
        >>> print(audit)                                                        # doctest: +SKIP
        12 wrong class, 31 missing, 4 misplaced in 929 labels of 128 images
    """
    several = tuple(models) if isinstance(models, Sequence) else (models,)
    if not several:
        raise InvalidInput("there is no model to look at the images: name one or more")
    for model in several:
        model.labels.check_shares(data.names, "the model", "the data")
    known = known_classes(several, data.names)
    looks = look(several, data, splits, known, on_progress)
    if not looks:
        raise InvalidInput("there is nothing to audit: the data set has no images")
    return judge(data, splits, looks, known)


def known_classes(models: Sequence[Predictor], names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which model knows which class, bool [models, classes]."""
    return np.array([[name in model.labels.names for name in names] for model in models])


def look(
    models: Sequence[Predictor],
    data: Dataset,
    splits: Sequence[Split],
    known: NDArray[np.bool_],
    on_progress: OnProgress | None = None,
) -> list[Look]:
    """Let models look at the images of a data set; its labels are not read.

    Args:
        models: One or more.
        data: The data set.
        splits: Which splits to look at.
        known: bool [models, classes]: which model knows which class of the data set.
        on_progress: Hears of the step "audit".

    Returns:
        What the models see in each image, in the order of the splits and their samples.

    Raises:
        DatasetError: An image cannot be read.
    """
    to_ours = [np.array(matching_ids(model.labels.names, data.names)) for model in models]
    samples = [sample for split in splits for sample in data.split(split)]
    seen: list[Look] = []
    for start in range(0, len(samples), _AT_ONCE):
        images = [read_image(sample.image) for sample in samples[start : start + _AT_ONCE]]
        answers = zip(*(model.predict(images, FAINTEST) for model in models), strict=True)
        for image, answer in zip(images, answers, strict=True):
            mapped = [one.with_ids(ids) for one, ids in zip(answer, to_ours, strict=True)]
            seen.append(Look.of((image.shape[1], image.shape[0]), mapped, known))
        report(on_progress, STEP, len(seen) / len(samples), f"{len(seen)} of {len(samples)} images")
    return seen


def _observe(sample: Sample, split: Split, seen: Look) -> Observation:
    """What labels and models say of an image."""
    rows = sample.boxes.astype(np.float64).reshape(-1, 5)
    centre, sides = rows[:, 1:3] * seen.size, rows[:, 3:5] * seen.size
    labels = np.concatenate([rows[:, :1], centre - sides / 2, centre + sides / 2], 1)
    belief, near = np.zeros(len(labels)), np.zeros(len(labels))
    for answer in seen.answers:
        overlaps, same = _overlaps(labels, answer), labels[:, :1] == answer.classes
        belief = np.maximum(belief, np.where(same & (overlaps >= SAME), answer.scores, 0).max(1, initial=0))
        near = np.maximum(near, np.where(overlaps >= NEAR, answer.scores, 0).max(1, initial=0))
    return Observation(sample.image, split, seen.size, labels, seen.found, _overlaps(labels, seen.found), belief, near)


def _fused(answers: Sequence[Detections], known: NDArray[np.bool_]) -> Detections:
    """Fuse the detections of each class over the models that know it, so that the others do not count as doubt."""
    parts = []
    for kind in np.unique(np.concatenate([answer.classes for answer in answers])):
        asked = [answer for answer, knows in zip(answers, known[:, kind], strict=True) if knows]
        parts.append(weighted_boxes_fusion([_of_class(answer, kind) for answer in asked], FAINTEST / len(asked)))
    if not parts:
        return Detections.of([], [], [])
    boxes, scores, classes = (np.concatenate([getattr(p, f) for p in parts]) for f in ("boxes", "scores", "classes"))
    return Detections.of(boxes, scores, classes)


def _of_class(found: Detections, kind: int) -> Detections:
    chosen = found.classes == kind
    return Detections(found.boxes[chosen], found.scores[chosen], found.classes[chosen])


def _overlaps(labels: Floats, found: Detections) -> Floats:
    boxes = found.boxes.astype(np.float64)
    return np.array([box_iou(row[1:], boxes) for row in labels]).reshape(len(labels), len(found))


def judge(data: Dataset, splits: Sequence[Split], looks: Sequence[Look], known: NDArray[np.bool_]) -> LabelAudit:
    """Find faults in the labels of a data set by what models have seen in its images.

    Args:
        data: The data set.
        splits: Which splits the models have looked at.
        looks: What they see in each image, as `look` returns it.
        known: bool [models, classes]: which model knows which class.

    Returns:
        The findings and the numbers of each class.
    """
    names = data.names
    samples = [(split, sample) for split in splits for sample in data.split(split)]
    observations = [_observe(sample, split, seen) for (split, sample), seen in zip(samples, looks, strict=True)]
    knowledge = _Knowledge(observations, len(names))
    findings = [
        finding
        for number, one in enumerate(observations)
        for finding in _Image(one, number, names, np.asarray(known.any(0)), knowledge).findings()
    ]
    findings.sort(key=lambda finding: -finding.score)
    per_class = {}
    for kind, name in enumerate(names):
        counts = Counter(finding.kind for finding in findings if finding.name == name)
        per_class[name] = ClassAudit(
            boxes=int(knowledge.labels[kind]),
            known_by=int(known[:, kind].sum()),
            believed=float(knowledge.believed[kind] / max(knowledge.labels[kind], 1)),
            seen=int(knowledge.seen[kind]),
            agreed=float(knowledge.agreed[kind] / max(knowledge.seen[kind], 1)),
            findings={kind: counts[kind] for kind in KINDS if counts[kind]},
        )
    return LabelAudit(
        findings=tuple(findings),
        per_class=per_class,
        images=len(observations),
        boxes=int(knowledge.labels.sum()),
        models=len(known),
    )


class _Knowledge:
    """How well models and labels agree in the whole data set: numbers by class, and for each label those alike."""

    def __init__(self, observations: Sequence[Observation], classes: int) -> None:
        self.labels, self.believed, self.seen, self.agreed = (np.zeros(classes) for _ in range(4))
        for one in observations:
            kinds = one.labels[:, 0].astype(np.int64)
            sure = one.found.scores >= SURE
            self.labels += np.bincount(kinds, minlength=classes)
            self.believed += np.bincount(kinds[one.belief >= SURE], minlength=classes)
            self.seen += np.bincount(one.found.classes[sure], minlength=classes)
            self.agreed += np.bincount(one.found.classes[sure & one.explained], minlength=classes)
        self._best, self._agreed_best = self._surest(observations, classes)
        self._expected = self._expect(observations)

    def reliability(self, kinds: NDArray[np.int64]) -> Floats:
        """How far to trust what is seen of each class: the share that is labelled alike, as if no label were wrong.

        A share of wrong labels lowers the agreement of all detections alike, and that of the surest shows by how much.
        """
        share, best = (self.agreed + 1) / (self.seen + 1), (self._agreed_best + 1) / (self._best + 1)
        reliability: Floats = np.minimum(share / np.maximum(best, WORST), 1)[kinds]
        return reliability

    def expected(self, image: int) -> Floats:
        """For each label of an image: the share of labels of its class and about its size that are seen at all."""
        return self._expected[image]

    def _surest(self, observations: Sequence[Observation], classes: int) -> tuple[Floats, Floats]:
        """Of the surest quarter of the objects seen of each class: their number, and how many are labelled alike."""
        kinds = np.concatenate([one.found.classes for one in observations])
        scores = np.concatenate([one.found.scores for one in observations])
        explained = np.concatenate([one.explained for one in observations])
        best, agreed = np.zeros(classes), np.zeros(classes)
        for kind in np.unique(kinds[scores >= SURE]):
            mine = np.flatnonzero((kinds == kind) & (scores >= SURE))
            surest = mine[np.argsort(-scores[mine], kind="stable")][: -(-len(mine) // 4)]
            best[kind], agreed[kind] = len(surest), explained[surest].sum()
        return best, agreed

    def _expect(self, observations: Sequence[Observation]) -> list[Floats]:
        sizes = [np.log(np.maximum((one.labels[:, 3:] - one.labels[:, 1:3]).prod(1), 1)) for one in observations]
        kinds = np.concatenate([one.labels[:, 0] for one in observations])
        size, seen = np.concatenate(sizes), np.concatenate([one.belief > 0 for one in observations])
        expected = np.zeros(len(kinds))
        for kind in np.unique(kinds):
            mine = np.flatnonzero(kinds == kind)
            mine = mine[np.argsort(size[mine], kind="stable")]
            place, counted = np.arange(len(mine)), np.concatenate([[0], seen[mine].cumsum()])
            first, last = np.maximum(place - NEIGHBOURS, 0), np.minimum(place + NEIGHBOURS + 1, len(mine))
            expected[mine] = (counted[last] - counted[first] - seen[mine]) / (last - first)
        return np.split(expected, np.cumsum([len(one) for one in sizes])[:-1])


class _Image:
    """The findings of one image. A label is in one of them at most, or in one more as a duplicate."""

    def __init__(
        self, seen: Observation, number: int, names: Sequence[str], known: NDArray[np.bool_], knowledge: _Knowledge
    ) -> None:
        self._seen, self._names = seen, names
        self._kinds = seen.labels[:, 0].astype(np.int64)
        self._judged = known[self._kinds]
        self._expected = knowledge.expected(number)
        self._labelled = knowledge.labels > 0
        self._sure = seen.found.scores * knowledge.reliability(seen.found.classes)

    def findings(self) -> Iterator[LabelFinding]:
        labels, detections = set[int](), set[int]()
        for score, kind, label, detection in sorted(self._contradictions(), reverse=True):
            if label not in labels and detection not in detections:
                labels.add(label)
                detections.add(detection)
                yield self._finding(kind, score, label, detection)
        for score, label in self._unseen():
            if label not in labels:
                yield self._finding("nothing there", score, label)
        yield from self._missing(detections)
        yield from self._duplicates()

    def _contradictions(self) -> Iterator[tuple[float, FindingKind, int, int]]:
        """Score, kind, label and detection, of detections that no label of their class explains."""
        one = self._seen
        scores = self._sure[None] - one.belief[:, None]
        free = self._judged[:, None] & ~one.explained
        wrong = free & ~one.same & (one.overlaps >= SAME) & (scores >= LEAST["wrong class"])
        misplaced = free & one.same & (one.overlaps >= NEAR) & (scores >= LEAST["misplaced"])
        kinds: tuple[tuple[FindingKind, NDArray[np.bool_]], ...] = (("wrong class", wrong), ("misplaced", misplaced))
        for kind, table in kinds:
            for label, detection in np.argwhere(table).tolist():
                yield float(scores[label, detection]), kind, label, detection

    def _unseen(self) -> Iterator[tuple[float, int]]:
        scores = np.where(self._judged, self._expected - self._seen.near, 0)
        for label in np.flatnonzero(scores >= LEAST["nothing there"]).tolist():
            yield float(scores[label]), label

    def _missing(self, used: set[int]) -> Iterator[LabelFinding]:
        """Objects that no label says, each once, whatever number of boxes and classes it has been given."""
        one = self._seen
        alone = (one.overlaps < SAME).all(0) & self._labelled[one.found.classes] & (self._sure >= LEAST["missing"])
        told = [one.found.boxes[index] for index in used]
        for index in np.flatnonzero(alone)[np.argsort(-self._sure[alone], kind="stable")].tolist():
            box = one.found.boxes[index]
            if index not in used and not (box_iou(box, np.array(told).reshape(-1, 4)) >= SAME).any():
                told.append(box)
                yield self._finding("missing", float(self._sure[index]), None, index)

    def _duplicates(self) -> Iterator[LabelFinding]:
        """Of two labels on one object, that which the models believe less."""
        boxes, belief = self._seen.labels[:, 1:], self._seen.belief
        told: set[int] = set()
        for first in range(len(boxes)):
            overlaps = box_iou(boxes[first], boxes)
            for second in range(first + 1, len(boxes)):
                overlap = float(overlaps[second])
                worse, better = (first, second) if belief[first] < belief[second] else (second, first)
                if overlap >= LEAST["duplicate"] and worse not in told:
                    told.add(worse)
                    yield self._finding("duplicate", overlap, worse, other=better)

    def _finding(
        self,
        kind: FindingKind,
        score: float,
        label: int | None,
        detection: int | None = None,
        other: int | None = None,
    ) -> LabelFinding:
        one, more = self._seen, dict[str, Any]()
        if label is not None:
            more = {
                "label": self._names[self._kinds[label]],
                "box": _corners(one.labels[label, 1:]),
                "number": label,
                "belief": float(one.belief[label]),
            }
        if detection is not None:
            more |= {
                "seen": self._names[one.found.classes[detection]],
                "seen_box": _corners(one.found.boxes[detection]),
                "confidence": float(one.found.scores[detection]),
            }
        if other is not None:
            more |= {"seen": self._names[self._kinds[other]], "seen_box": _corners(one.labels[other, 1:])}
        return LabelFinding(kind=kind, score=score, image=one.image, split=one.split, image_size=one.size, **more)


def _corners(row: NDArray[Any]) -> Corners:
    x1, y1, x2, y2 = (round(float(value), 2) for value in row)
    return x1, y1, x2, y2
