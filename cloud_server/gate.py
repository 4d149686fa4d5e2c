"""The gate: pure rules on what a candidate must show before it may replace the models that run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cloud_server.entities import Json
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace

_ROUNDING: Final = 1e-9
"""Two runs of the same model over the same images differ by less."""


TOO_FEW_IMAGES: Final = "the site has too few held-out images to say anything about them"
MAX_OWN_LOSS: Final = 0.05
"""The most AP50 (0..1) that a rebase may cost one class of the site's own."""


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate passed, the reason in one sentence, and the figures that decided it."""

    passed: bool
    reason: str
    metrics: Json = field(default_factory=dict)


def check_presumed(before: DetectionMetrics, after: DetectionMetrics, max_harm: float) -> Verdict:
    """Judge a candidate on the presumed held-out images: old knowledge must stay.

    Args:
        before: Metrics of the model that runs.
        after: Metrics of the candidate.
        max_harm: By how much mAP50 (0..1) may fall at most.
    """
    shown = {"before": before.model_dump(mode="json"), "after": after.model_dump(mode="json"), "max_harm": max_harm}
    if not _finite(before, after):
        return Verdict(False, "a figure on the presumed images is not a number", shown)
    harm = before.map50 - after.map50
    reason = f"mAP50 on presumed images {before.map50:.3f} to {after.map50:.3f}"
    if harm > max_harm + _ROUNDING:
        return Verdict(False, f"{reason}: it may fall by {max_harm:.3f} at most", shown)
    return Verdict(True, reason, shown)


def check_false_alarms(count: float, most: float) -> Verdict:
    """Judge how often a candidate finds new classes on presumed images, which show none.

    Args:
        count: Detections at the running confidence on 100 images.
        most: How many there may be.
    """
    shown: Json = {"false_alarms": count, "max_false_alarms": most}
    reason = f"new classes found {count:.1f} times on 100 presumed images"
    if not math.isfinite(count) or count > most + _ROUNDING:
        return Verdict(False, f"{reason}: they may be found {most:g} times at most", shown)
    return Verdict(True, reason, shown)


def check_labels(candidate: LabelSpace, base: LabelSpace, known: LabelSpace) -> Verdict:
    """Judge a candidate's classes: no old id may change its meaning, and the cloud must have given out each new one.

    Args:
        candidate: Classes of the candidate.
        base: Classes of the model that runs.
        known: All classes to which the cloud has given an id.
    """
    shown: Json = {"classes": list(candidate.names)}
    if not candidate.extends(base):
        return Verdict(False, "the candidate's classes do not begin with those of the release that it replaces", shown)
    if not known.extends(candidate):
        return Verdict(False, "the candidate has a class that the cloud gave no id", shown)
    return Verdict(True, f"{len(candidate)} classes, {len(candidate) - len(base)} of them new", shown)


def check_site(before: DetectionMetrics, after: DetectionMetrics, new_classes: Sequence[str]) -> Verdict:
    """Judge a candidate on a site's held-out images: it must not be worse than the model that runs there.

    Args:
        before: Metrics of the model that runs.
        after: Metrics of the candidate.
        new_classes: Classes that the model that runs does not know. Their AP50 goes on record.
    """
    if not before.images or not after.images:
        return Verdict(True, TOO_FEW_IMAGES)
    learned = {name: after.per_class[name].ap50 for name in new_classes if name in after.per_class}
    shown = {
        "before": before.model_dump(mode="json"),
        "after": after.model_dump(mode="json"),
        "new_classes_ap50": learned,
    }
    if problem := _incomparable(before, after):
        return Verdict(False, problem, shown)
    reason = f"mAP50 on the site's images {before.map50:.3f} to {after.map50:.3f}"
    if after.estimated:
        reason = f"estimated by an oracle's answers, without labels: {reason}"
    reason += "".join(f", {name} AP50 {ap50:.3f}" for name, ap50 in learned.items())
    if after.map50 < before.map50 - _ROUNDING:
        return Verdict(False, f"{reason}: worse than before", shown)
    return Verdict(True, reason, shown)


def check_rebase(
    before: DetectionMetrics, after: DetectionMetrics, own_classes: Sequence[str], max_harm: float
) -> Verdict:
    """Judge a rebased release on a site's held-out images: it must keep what the site's own release has learned.

    Args:
        before: Metrics of the scope's own release.
        after: Metrics of the rebased one.
        own_classes: Classes that the wider release does not know.
        max_harm: By how much mAP50 (0..1) may fall, for what the wider release brings.
    """
    if not before.images or not after.images:
        return Verdict(True, TOO_FEW_IMAGES)
    shown = {
        "before": before.model_dump(mode="json"),
        "after": after.model_dump(mode="json"),
        "max_harm": max_harm,
    }
    if problem := _incomparable(before, after):
        return Verdict(False, problem, shown)
    reason = f"mAP50 on the site's images {before.map50:.3f} to {after.map50:.3f}"
    if before.map50 - after.map50 > max_harm + _ROUNDING:
        return Verdict(False, f"{reason}: it may fall by {max_harm:.3f} at most", shown)
    for name in own_classes:
        if name not in before.per_class:
            continue
        old = before.per_class[name].ap50
        new = after.per_class[name].ap50 if name in after.per_class else 0.0
        reason += f", {name} AP50 {old:.3f} to {new:.3f}"
        if not old - new <= max(max_harm, MAX_OWN_LOSS) + _ROUNDING:  # nor if one is not a number
            return Verdict(False, f"{reason}: the site's own class is lost", shown)
    return Verdict(True, reason, shown)


def check_external(said: Mapping[str, tuple[DetectionMetrics, DetectionMetrics]], max_harm: float) -> Verdict:
    """Judge a candidate by sites that took no part: it must not be worse for half of them or more.

    One site alone among several can therefore not stop the others. The reason names none of them.

    Args:
        said: By site, metrics of the release that would be replaced and of the candidate, on its held-out images.
        max_harm: By how much mAP50 (0..1) may fall at a site.
    """
    compared = {site: figures for site, figures in said.items() if all(metrics.images for metrics in figures)}
    verdicts = {site: check_rebase(*figures, (), max_harm) for site, figures in compared.items()}
    shown: Json = {site: verdict.metrics | {"passed": verdict.passed} for site, verdict in verdicts.items()}
    if not verdicts:
        return Verdict(True, "no site that took no part could say anything", shown)
    worse = sum(not verdict.passed for verdict in verdicts.values())
    reason = f"worse at {worse} of {len(verdicts)} sites that took no part"
    if worse and 2 * worse >= len(verdicts):
        return Verdict(False, f"{reason}: mAP50 may fall by {max_harm:.3f} at most", shown)
    return Verdict(True, reason, shown)


def _incomparable(before: DetectionMetrics, after: DetectionMetrics) -> str:
    """Say why a site's figures cannot be compared; empty where they can."""
    if not _finite(before, after):
        return "a figure on the site's images is not a number"
    if before.judged_by != after.judged_by:
        return "the site's figures before and after are not by the same labels: they say nothing"
    return ""


def _finite(*all_metrics: DetectionMetrics) -> bool:
    return all(
        math.isfinite(value)
        for metrics in all_metrics
        for value in (metrics.map50, metrics.map50_95, metrics.precision, metrics.recall, metrics.f1)
    )
