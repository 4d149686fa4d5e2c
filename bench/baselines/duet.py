"""DuET's idea: task arithmetic for what classes share, heads of their own for old and new classes.

"DuET: Dual Incremental Object Detection via Exemplar-Free Task Arithmetic", ICCV 2025, arXiv 2506.21260: shared weights
are merged by task arithmetic, each task keeps its head. Its directional consistency loss is not built here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from environment import BenchSite, Environment

from diredi.detectors.base import Detector
from diredi.detectors.predictor import Detections, Image
from diredi.knowledge.gap import apply, compute
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

LAMBDA = 0.5


@dataclass(frozen=True)
class TwoHeads:
    """Old classes from one head, new ones from the other, over the same shared weights."""

    old: Detector
    new: Detector
    known: LabelSpace

    @property
    def labels(self) -> LabelSpace:
        return self.new.spec.labels

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        pairs = zip(self.old.predict(images, confidence), self.new.predict(images, confidence), strict=True)
        return [self._joined(*pair) for pair in pairs]

    def _joined(self, old: Detections, new: Detections) -> Detections:
        fresh = new.classes >= len(self.known)
        columns = [
            np.concatenate([a, b[fresh]])
            for a, b in ((old.boxes, new.boxes), (old.scores, new.scores), (old.classes, new.classes))
        ]
        order = np.argsort(-columns[1], kind="stable")
        return Detections(*(column[order] for column in columns))


def merge(environment: Environment, site: BenchSite, fine_tuned: Detector, lam: float = LAMBDA) -> TwoHeads:
    """`fine_tuned` is the deployed student after the site's own training."""
    base, after = environment.student, fine_tuned.weights()
    shared = {name for name in base.weights() if base.section_of(name) != "head"}
    gap = compute(after, base.weights(), base.weights())
    moved = gap.selected(lambda name: name in shared)
    old = environment.student.expand_classes(environment.known)
    old.load_weights(apply(base.weights(), moved, lam))
    new = fine_tuned.expand_classes(site.labels)
    new.load_weights(WeightMap({**after, **{name: array for name, array in old.weights().items() if name in shared}}))
    return TwoHeads(old, new, environment.known)
