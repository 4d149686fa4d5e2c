"""Both releases on both held-out sets, from the files that devices run; and all that the report says."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diredi import __version__
from diredi.rpc.convert import metrics_from
from diredi_cli.output import Progress, heard_by
from diredi_cli.proto_json import message_to_dict
from diredi_cli.watch import state_of
from diredi_demo.options import SITE, DemoOptions
from diredi_demo.report import (
    CycleSummary,
    DataSummary,
    DecisionSummary,
    DeviceSummary,
    GapSummary,
    ModelSummary,
    Pair,
    Picture,
    Report,
    StepTaken,
)
from diredi_demo.timing import Clock
from diredi_demo.workspace import Workspace

if TYPE_CHECKING:
    from diredi.data.dataset import Dataset
    from diredi.detectors.predictor import Predictor
    from diredi.evaluation.metrics import DetectionMetrics
    from diredi.labels import LabelSpace
    from diredi_demo.scenario import Outcome

_PICTURES = {"site": 3, "presumed": 1}
_PICTURES_WITHOUT_SITE = 3


def measure(setting: DemoOptions, folder: Workspace, outcome: Outcome, clock: Clock, bar: Progress) -> Report:
    """The demo owns all data, so it may measure what neither side of a real deployment could alone."""
    from diredi.data.dataset import load
    from diredi.detectors.onnx import OnnxPredictor

    version = outcome.cycle.release_version
    with clock.span("evaluate", "after"):
        old, new = OnnxPredictor(folder.release(version - 1)), OnnxPredictor(folder.release(version))
        labels = new.labels
        presumed = load(outcome.data.presumed).with_labels(labels)
        private = load(outcome.data.private, read_labels=outcome.data.labelled)
        left_out = tuple(name for name in private.names if name not in labels.names)
        private = _of_known_classes(private, labels)
        estimate = _estimate(outcome)
        old_estimate, new_estimate = (None, None) if outcome.data.labelled or estimate is None else estimate
        before = _pair(old, presumed, private, bar, version - 1, old_estimate)
        after = _pair(new, presumed, private, bar, version, new_estimate)
        new_classes = labels.new_since(old.labels)
        pictures = _pictures(setting, presumed, private, labels, new_classes, old, new)
    seconds = clock.seconds()
    return Report(
        diredi=__version__,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        command=setting.command,
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        cycle=_cycle(outcome),
        before=before,
        after=after,
        estimate=estimate,
        left_out=left_out,
        new_classes=new_classes,
        labels=labels.names,
        gap=_gap(outcome),
        private_bytes=outcome.site.private_bytes,
        seconds={**seconds, "total": round(clock.now(), 3)},
        spans=tuple(span for span in clock.spans if span.name != "cycle"),
        releases={name: status.release_version for name, status in outcome.edges.items()},
        before_version=version - 1,
        after_version=version,
        devices=_devices(outcome),
        models=_models(outcome),
        data={
            "presumed": _data(presumed, setting.presumed is None, str(outcome.data.presumed)),
            "site": _data(private, setting.private is None, "the site's own set"),
        },
        built_in_scenes=setting.private_is_generated,
        pictures=pictures,
        **_egress(outcome),
    )


def _of_known_classes(data: Dataset, labels: LabelSpace) -> Dataset:
    """Return the data set without the classes that no release knows: an oracle teaches none that is new."""
    grown = data.with_labels(labels.expand(data.names))
    train, val = (
        [replace(sample, boxes=sample.boxes[sample.boxes[:, 0] < len(labels)]) for sample in samples]
        for samples in (grown.train, grown.val)
    )
    return replace(grown, names=labels.names, train=train, val=val)


def _estimate(outcome: Outcome) -> tuple[DetectionMetrics, DetectionMetrics] | None:
    """What the site itself said of both releases, where an oracle was all that it could judge by."""
    part = outcome.cycle.sites[0]
    before, after = metrics_from(part.gap.student_before), metrics_from(part.site_after)
    return (before, after) if after.estimated else None


def _pair(
    predictor: Predictor,
    presumed: Dataset,
    private: Dataset,
    bar: Progress,
    version: int,
    at_site: DetectionMetrics | None,
) -> Pair:
    """Measure a release on both sets; on the site's only where there are labels, and no metrics of it yet."""
    from diredi.evaluation.detection import evaluate

    metrics = {} if at_site is None else {"site": at_site}
    for name, dataset, words in (("presumed", presumed, "manufacturer's"), ("site", private, "site's")):
        if name in metrics:
            continue
        step = f"Measuring release {version} on the {words} held-out images"
        metrics[name] = evaluate(predictor, dataset, on_progress=heard_by(bar, step))
    return Pair(**metrics)


def _pictures(
    setting: DemoOptions,
    presumed: Dataset,
    private: Dataset,
    labels: LabelSpace,
    new_classes: tuple[str, ...],
    old: Predictor,
    new: Predictor,
) -> tuple[Picture, ...]:
    from diredi_demo.pictures import choose, picture

    shown: list[Picture] = []
    if setting.private_is_generated:
        for sample in choose(private.val, labels, new_classes, _PICTURES["site"]):
            shown.append(picture(sample, "site", labels, old, new))
    count = _PICTURES["presumed"] if setting.private_is_generated else _PICTURES_WITHOUT_SITE
    for sample in choose(presumed.val, labels, (), count):
        shown.append(picture(sample, "presumed", labels, old, new))
    return tuple(shown)


def _cycle(outcome: Outcome) -> CycleSummary:
    cycle = message_to_dict(outcome.cycle)
    history = tuple(
        StepTaken(
            state=entry["state"],
            at=entry["at"],
            actor=entry["actor"],
            reason=entry["reason"],
            metrics=entry["metrics"] or {},
        )
        for entry in cycle["history"]
    )
    return CycleSummary(
        id=cycle["id"], site=cycle["site"], state=state_of(outcome.cycle), history=history, recipe=cycle["recipe"] or {}
    )


def _gap(outcome: Outcome) -> GapSummary:
    gap = outcome.cycle.gap
    return GapSummary(
        bytes=gap.tutor_gap.blob.bytes,
        tutor_fp32_bytes=gap.tutor_gap.fp32_bytes,
        codec=gap.tutor_gap.codec,
        student_bytes=gap.student_gap.blob.bytes,
        student_fp32_bytes=gap.student_gap.fp32_bytes,
        decisions=tuple(
            DecisionSummary(subject=one.subject, choice=one.choice, because=one.because) for one in gap.decisions
        ),
    )


def _egress(outcome: Outcome) -> dict[str, Any]:
    """What every sender of the site counted, and the sum. Short names: they are all of one package."""
    senders = {SITE: outcome.site.sent_bytes, **{name: status.sent_bytes for name, status in outcome.edges.items()}}
    by_sender = {
        name: {kind.rpartition(".")[2]: count for kind, count in sorted(sent.items())} for name, sent in senders.items()
    }
    total: dict[str, int] = {}
    for sent in by_sender.values():
        for kind, count in sent.items():
            total[kind] = total.get(kind, 0) + count
    return {"egress": dict(sorted(total.items(), key=lambda item: -item[1])), "egress_by_sender": by_sender}


def _devices(outcome: Outcome) -> tuple[DeviceSummary, ...]:
    return tuple(
        DeviceSummary(
            name=name,
            release=status.release_version,
            frames=status.frames,
            dropped_frames=status.dropped_frames,
            frames_per_second=status.frames_per_second,
            latency_ms=status.latency_ms,
        )
        for name, status in outcome.edges.items()
    )


def _models(outcome: Outcome) -> dict[str, ModelSummary]:
    return {
        name: ModelSummary(architecture=model.architecture, weights_bytes=model.weights.bytes)
        for name, model in outcome.models.items()
        if name != "new student"
    }


def _data(dataset: Dataset, generated: bool, source: str) -> DataSummary:
    return DataSummary(
        source="built-in scenes" if generated else source,
        train_images=len(dataset.train),
        held_out_images=len(dataset.val),
        bytes=dataset.bytes_on_disk(),
    )
