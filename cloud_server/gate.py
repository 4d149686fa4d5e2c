"""The gate: what a candidate must show before it may replace what runs. Pure rules; figures in, verdict out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cloud_server.entities import Json
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace

_ROUNDING: Final = 1e-9
"""Two runs of the same model over the same images differ by less."""


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate passed, why in a sentence, and the figures that decided it."""

    passed: bool
    reason: str
    figures: Json = field(default_factory=dict)


def check_presumed(before: DetectionMetrics, after: DetectionMetrics, max_harm: float) -> Verdict:
    """Old knowledge must stay: mAP50 on the presumed held-out images may fall by `max_harm` (0..1) at most."""
    shown = {"before": before.model_dump(mode="json"), "after": after.model_dump(mode="json"), "max_harm": max_harm}
    if not _finite(before, after):
        return Verdict(False, "a figure on the presumed images is not a number", shown)
    harm = before.map50 - after.map50
    said = f"mAP50 on presumed images {before.map50:.3f} to {after.map50:.3f}"
    if harm > max_harm + _ROUNDING:
        return Verdict(False, f"{said}: it may fall by {max_harm:.3f} at most", shown)
    return Verdict(True, said, shown)


def check_labels(candidate: LabelSpace, base: LabelSpace, known: LabelSpace) -> Verdict:
    """Every old id must mean what it meant, and every new one be one that the cloud gave out."""
    shown: Json = {"classes": list(candidate.names)}
    if not candidate.extends(base):
        return Verdict(False, "the candidate's classes do not begin with those of the release that it replaces", shown)
    if not known.extends(candidate):
        return Verdict(False, "the candidate has a class that the cloud gave no id", shown)
    return Verdict(True, f"{len(candidate)} classes, {len(candidate) - len(base)} of them new", shown)


def check_site(before: DetectionMetrics, after: DetectionMetrics, new_classes: Sequence[str]) -> Verdict:
    """On the site's held-out images the candidate must not be worse than what runs there; new classes are recorded."""
    learned = {name: after.per_class[name].ap50 for name in new_classes if name in after.per_class}
    shown = {
        "before": before.model_dump(mode="json"),
        "after": after.model_dump(mode="json"),
        "new_classes_ap50": learned,
    }
    if not _finite(before, after):
        return Verdict(False, "a figure on the site's images is not a number", shown)
    said = f"mAP50 on the site's images {before.map50:.3f} to {after.map50:.3f}"
    said += "".join(f", {name} AP50 {ap50:.3f}" for name, ap50 in learned.items())
    if after.map50 < before.map50 - _ROUNDING:
        return Verdict(False, f"{said}: worse than before", shown)
    return Verdict(True, said, shown)


def _finite(*all_figures: DetectionMetrics) -> bool:
    return all(
        math.isfinite(value)
        for figures in all_figures
        for value in (figures.map50, figures.map50_95, figures.precision, figures.recall, figures.f1)
    )
