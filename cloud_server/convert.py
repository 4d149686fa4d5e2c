"""Conversion of the cloud's values to messages and back. What all services share is in `diredi.rpc.convert`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from cloud_server.cycles.rebase import StaleRelease
from cloud_server.entities import (
    Cycle,
    Decision,
    DetectionHealth,
    EncodedGap,
    GapManifest,
    Install,
    Json,
    LambdaScore,
    Model,
    Outcome,
    Part,
    Progress,
    SourceState,
    Transition,
    UpdateWait,
    Vitals,
)
from cloud_server.fleet.service import Deployment, DeviceView, RolloutReport
from cloud_server.sites.service import Assignment, Group, SiteView
from diredi.data.style import SiteStyle
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace
from diredi.rpc import convert as base
from diredi.rpc.limits import MAX_MESSAGE_BYTES
from diredi.rpc.v1 import common_pb2, cycles_pb2, fleet_pb2, releases_pb2, sites_pb2
from diredi.text import printable

_MAX_CLASSES: Final = 1000
_MAX_REASON: Final = 500
_MAX_COUNT: Final = 2**63 - 1
"""What the database can hold."""
_STATE: Final = cycles_pb2.CycleState.Value
_DETAIL_BYTES: Final = MAX_MESSAGE_BYTES - 3 * 2**20
"""What a cycle may weigh without the copy of the first gap, which is at most a manifest and a validation."""


def model_to(model: Model) -> common_pb2.Model:
    """Return the message of a model."""
    spec = DetectorSpec(architecture=model.architecture, image_size=model.image_size, labels=model.labels)
    return base.model_to(
        base.Model(
            id=model.id, kind=model.kind, spec=spec, weights=model.weights, onnx=model.onnx, parent_id=model.parent_id,
            cycle_id=model.cycle_id, presumed=model.presumed, created=model.created, scope=model.scope,
        )
    )  # fmt: skip


def release_to(deployment: Deployment) -> fleet_pb2.Release:
    """Return the message of a release.

    Raises:
        InvalidInput: The student has no ONNX file.
    """
    release, student = deployment.release, deployment.student
    if student.onnx is None:
        raise InvalidInput(f"release {release.version} has no ONNX file: make a new release")
    return base.release_to(
        base.Release(
            version=release.version, student_id=student.id, onnx=student.onnx, labels=student.labels,
            image_size=student.image_size, cycle_id=release.cycle_id, created=release.created, scope=release.scope,
            target=deployment.target,
        )
    )  # fmt: skip


def cycle_to(cycle: Cycle, brief: bool = False) -> cycles_pb2.Cycle:
    """Return the message of a cycle.

    Args:
        cycle: The cycle.
        brief: Leave out gaps, certificates, the figures of the history and those by class, so that many cycles fit into
            one message. Where it is not brief, what no longer fits into a message is left out, the last sites' first.
    """
    message = cycles_pb2.Cycle(
        id=cycle.id, site=cycle.sites[0], state=_STATE(f"CYCLE_STATE_{cycle.state}"),
        history=[_transition_to(transition) for transition in cycle.history],
        recipe=base.struct_to(cycle.recipe), base_tutor_id=cycle.base_tutor_id, base_student_id=cycle.base_student_id,
        updated_tutor_id=cycle.updated_tutor_id, updated_student_id=cycle.updated_student_id,
        release_version=cycle.release_version, approved=cycle.approved, scope=cycle.scope, rebases=cycle.rebases,
        sites=[_part_to(part) for part in cycle.parts],
    )  # fmt: skip
    if cycle.progress is not None:
        message.progress.CopyFrom(cycles_pb2.Progress(**cycle.progress.model_dump()))
    if not brief:
        _add_details(message, cycle)
    first = next((part for part in message.sites if part.HasField("gap")), None)
    if first is not None:  # where clients that know one site only look
        message.gap.CopyFrom(first.gap)
        if first.HasField("site_after"):
            message.site_after.CopyFrom(first.site_after)
    return message


def stale_to(stale: StaleRelease) -> cycles_pb2.StaleRelease:
    """Return the message of a release that does not stand on the newest of the next wider scope."""
    release = stale.release
    return cycles_pb2.StaleRelease(scope=release.scope, release_version=release.version, lacks=stale.lacks)


def _add_details(message: cycles_pb2.Cycle, cycle: Cycle) -> None:
    """Add to a brief message what it lacks, as long as it fits."""
    room = _DETAIL_BYTES - message.ByteSize()
    for part_message, part in zip(message.sites, cycle.parts, strict=True):
        full = cycles_pb2.SitePart(certificate=part.certificate)
        if part.gap is not None:
            full.gap.CopyFrom(manifest_to(part.gap))
        if part.before is not None:
            full.site_before.CopyFrom(base.metrics_to(part.before))
        if part.after is not None:
            full.site_after.CopyFrom(base.metrics_to(part.after))
        room -= full.ByteSize()
        if room < 0:
            return
        for field in ("site_before", "site_after"):  # a merge would add to the brief ones
            part_message.ClearField(field)
        part_message.MergeFrom(full)
    for step, transition in zip(message.history, cycle.history, strict=True):
        metrics = base.struct_to(transition.metrics)
        room -= metrics.ByteSize()
        if room < 0:
            return
        step.metrics.CopyFrom(metrics)


def _brief_metrics_to(metrics: DetectionMetrics) -> common_pb2.DetectionMetrics:
    return base.metrics_to(metrics.model_copy(update={"per_class": {}}))


def _part_to(part: Part) -> cycles_pb2.SitePart:
    message = cycles_pb2.SitePart(
        site=part.site, state=_STATE(f"CYCLE_STATE_{part.state}"), approved=part.approved, reason=part.dropped_because,
        publishes_style=part.publishes_style,
    )  # fmt: skip
    if part.progress is not None:
        message.progress.CopyFrom(cycles_pb2.Progress(**part.progress.model_dump()))
    if part.before is not None:
        message.site_before.CopyFrom(_brief_metrics_to(part.before))
    if part.after is not None:
        message.site_after.CopyFrom(_brief_metrics_to(part.after))
    return message


def _transition_to(transition: Transition) -> cycles_pb2.Transition:
    return cycles_pb2.Transition(
        state=_STATE(f"CYCLE_STATE_{transition.state}"), at=base.time_to(transition.at),
        actor=transition.actor, reason=transition.reason, metrics=base.struct_to({}),
    )  # fmt: skip


def progress_from(message: cycles_pb2.Progress) -> Progress:
    """Return the progress that a message tells of, its texts shortened to one line.

    Raises:
        InvalidInput: The fraction is not between 0 and 1.
    """
    if not 0 <= message.fraction <= 1:
        raise InvalidInput(f"the progress fraction is {message.fraction}: it must be between 0 and 1")
    step, text = printable(message.step[:64]), printable(message.message[:200])
    return Progress(step=step, fraction=message.fraction, message=text)


def reason_from(text: str) -> str:
    """Return the reason that another party gives, in characters that can be printed and no longer than a reason is."""
    return printable(text[:_MAX_REASON])


def class_names_from(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names, each once and without spaces around it.

    Raises:
        InvalidInput: There is none or there are too many, or one is empty, too long or not printable.
    """
    if not 0 < len(names) <= _MAX_CLASSES:
        raise InvalidInput(f"{len(names)} class names were proposed: name 1 to {_MAX_CLASSES}")
    try:
        return LabelSpace(names=tuple(dict.fromkeys(name.strip() for name in names))).names
    except ValidationError as error:
        problem = error.errors()[0]
        raise InvalidInput(f"class name {str(problem['input'])[:80]!r} is not usable: {problem['msg']}") from None


def manifest_to(manifest: GapManifest) -> cycles_pb2.GapManifest:
    """Return the message of a manifest."""
    message = cycles_pb2.GapManifest(
        cycle_id=manifest.cycle_id, scope=manifest.scope, tutor_gap=_gap_to(manifest.tutor_gap),
        labels=base.labels_to(manifest.labels),
        train_images=manifest.train_images, held_out_images=manifest.held_out_images, boxes=manifest.boxes,
        recipe=base.struct_to(manifest.recipe), student_before=base.metrics_to(manifest.student_before),
        tutor_after=base.metrics_to(manifest.tutor_after), signature=bytes.fromhex(manifest.signature),
        scores=[cycles_pb2.LambdaScore(lam=s.lam, metrics=base.metrics_to(s.metrics)) for s in manifest.scores],
        decisions=[cycles_pb2.Decision(**decision.model_dump()) for decision in manifest.decisions],
    )  # fmt: skip
    if manifest.student_gap is not None:
        message.student_gap.CopyFrom(_gap_to(manifest.student_gap))
    if manifest.student_after is not None:
        message.student_after.CopyFrom(base.metrics_to(manifest.student_after))
    if manifest.style is not None:
        message.style.CopyFrom(base.struct_to(manifest.style))
    return message


def manifest_from(message: cycles_pb2.GapManifest) -> GapManifest:
    """Return the manifest of a message.

    Raises:
        InvalidInput: Something is missing or wrong; the message names it.
    """
    for part in ("tutor_gap", "labels", "student_before", "tutor_after"):
        if not message.HasField(part):
            raise InvalidInput(f"the manifest has no {part}: send the whole manifest")
    labels = base.labels_from(message.labels)
    unknown = sorted(set(message.boxes) - set(labels.names))
    if unknown:
        raise InvalidInput(f"the manifest counts boxes of {unknown[0][:64]!r}, which is none of its classes")
    has_student = message.HasField("student_gap")
    try:
        return GapManifest(
            cycle_id=message.cycle_id, scope=message.scope, tutor_gap=_gap_from(message.tutor_gap),
            student_gap=_gap_from(message.student_gap) if has_student else None, labels=labels,
            train_images=message.train_images, held_out_images=message.held_out_images, boxes=dict(message.boxes),
            recipe=base.struct_from(message.recipe), student_before=base.metrics_from(message.student_before),
            tutor_after=base.metrics_from(message.tutor_after),
            student_after=base.metrics_from(message.student_after) if message.HasField("student_after") else None,
            scores=tuple(LambdaScore(lam=s.lam, metrics=base.metrics_from(s.metrics)) for s in message.scores),
            decisions=tuple(
                Decision(subject=one.subject, choice=one.choice, because=one.because) for one in message.decisions
            ),
            style=_style_from(message),
            signature=message.signature.hex(),
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"the manifest is not usable at {where}: {first['msg']}") from None


def _style_from(message: cycles_pb2.GapManifest) -> Json | None:
    """Return the style as it came, after a check that it is nothing else than a style."""
    if not message.HasField("style"):
        return None
    style = base.struct_from(message.style)
    SiteStyle.model_validate(style)
    return style


def _gap_to(gap: EncodedGap) -> cycles_pb2.EncodedGap:
    return cycles_pb2.EncodedGap(
        blob=base.blob_to(gap.blob), codec=gap.codec, fp32_bytes=gap.fp32_bytes, base_id=gap.base_id,
        schema_digest=gap.schema_digest,
    )  # fmt: skip


def _gap_from(message: cycles_pb2.EncodedGap) -> EncodedGap:
    return EncodedGap(
        blob=base.blob_from(message.blob), codec=message.codec[:64], fp32_bytes=message.fp32_bytes,
        base_id=message.base_id, schema_digest=message.schema_digest,
    )  # fmt: skip


def task_to(assignment: Assignment) -> sites_pb2.Task:
    """Return the message of a task with its models."""
    task = assignment.task
    message = sites_pb2.Task(
        id=task.id, kind=sites_pb2.TaskKind.Value(f"TASK_KIND_{task.kind.name}"), cycle_id=task.cycle.id,
        approved=task.part.approved, scope=task.cycle.scope, rebased_cycle_id=assignment.rebased_cycle_id,
    )  # fmt: skip
    if assignment.tutor is not None:  # EXTRACT and VALIDATE
        message.recipe.CopyFrom(base.struct_to(task.cycle.recipe))
        message.tutor.CopyFrom(model_to(assignment.tutor))
    if assignment.student is not None:
        message.student.CopyFrom(model_to(assignment.student))
    if assignment.deployed is not None:
        message.deployed.CopyFrom(model_to(assignment.deployed))
    if assignment.coreset is not None:
        message.coreset.CopyFrom(base.blob_to(assignment.coreset))
    return message


def site_to(view: SiteView, received: dict[str, int]) -> sites_pb2.Site:
    """Return the message of a site.

    Args:
        view: The site.
        received: Bytes received from it, by type of message.
    """
    return sites_pb2.Site(
        name=view.site.name, online=view.online, last_seen=base.time_to(view.site.last_seen), devices=view.devices,
        cycle_id=view.cycle_id, received_bytes=received, group=view.group,
    )  # fmt: skip


def group_to(group: Group) -> sites_pb2.Group:
    """Return the message of a group."""
    return sites_pb2.Group(name=group.name, sites=group.sites)


MAX_SOURCES = 64
_SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RUNTIME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,63}")
_SIGNAL_NAME = re.compile(r"[a-z_]{1,32}")
_WAITS = {fleet_pb2.UPDATE_WAIT_HELD: UpdateWait.HELD, fleet_pb2.UPDATE_WAIT_WINDOW: UpdateWait.WINDOW}
_WAIT_MESSAGES = {wait: message for message, wait in _WAITS.items()}
_SOURCE_STATES = {fleet_pb2.SourceState.Value(f"SOURCE_STATE_{state.name}"): state for state in SourceState}


def vitals_from(message: fleet_pb2.HeartbeatRequest) -> Vitals:
    """Return what a heartbeat tells. Raises InvalidInput when it names a time, sources or a runtime that cannot be."""
    expires = base.time_from(message.certificate_expires) if message.HasField("certificate_expires") else None
    return Vitals(
        release_version=message.release_version, frames=min(message.frames, _MAX_COUNT),
        frames_per_second=_finite(message.frames_per_second), latency_ms=_finite(message.latency_ms),
        sources=_sources_from(message.sources), drifts=_drifts_from(message.sources), certificate_expires=expires,
        failed_frames=min(message.failed_frames, _MAX_COUNT), updates_stalled=message.updates_stalled,
        runtime=_runtime_from(message.runtime),
        update_wait=_WAITS.get(message.update_wait, UpdateWait.NONE),
        detection=_detection_from(message.detection) if message.HasField("detection") else None,
    )  # fmt: skip


def _detection_from(message: fleet_pb2.DetectionHealth) -> DetectionHealth:
    return DetectionHealth(
        frames=min(message.frames, _MAX_COUNT), failed_frames=min(message.failed_frames, _MAX_COUNT),
        dropped_frames=min(message.dropped_frames, _MAX_COUNT),
        boxes=message.boxes, confidence=min(_finite(message.confidence), 1.0),
        boxes_before=message.boxes_before, confidence_before=min(_finite(message.confidence_before), 1.0),
        compared_boxes=message.compared_boxes, differing_boxes=message.differing_boxes,
    )  # fmt: skip


def _runtime_from(name: str) -> str:
    if name and not _RUNTIME_NAME.fullmatch(name):
        raise InvalidInput("the name of a runtime has 1 to 64 letters, digits and .:_-: name another")
    return name


def _sources_from(messages: Sequence[fleet_pb2.Source]) -> dict[str, SourceState]:
    if len(messages) > MAX_SOURCES:
        raise InvalidInput(f"{len(messages)} sources are more than {MAX_SOURCES}: run several edge nodes")
    states = {}
    for message in messages:
        if not _SOURCE_NAME.fullmatch(message.name):
            raise InvalidInput("the name of a source has 1 to 64 letters, digits and .-_: rename it")
        # A state that a newer device knows and this cloud does not is at least not "ok".
        states[message.name] = _SOURCE_STATES.get(message.state, SourceState.OPENING)
    return states


def _drifts_from(messages: Sequence[fleet_pb2.Source]) -> dict[str, str]:
    if strange := [message.name for message in messages if message.drift and not _SIGNAL_NAME.fullmatch(message.drift)]:
        raise InvalidInput(f"what has drifted at source {strange[0]} is no word of 1 to 32 small letters: name another")
    return {message.name: message.drift for message in messages if message.drift}


def _finite(number: float) -> float:
    return number if 0 <= number < float("inf") else 0.0


_OUTCOMES = {
    fleet_pb2.INSTALL_OUTCOME_INSTALLED: Outcome.INSTALLED,
    fleet_pb2.INSTALL_OUTCOME_FAILED: Outcome.FAILED,
}


def outcome_from(outcome: fleet_pb2.InstallOutcome.ValueType) -> Outcome:
    """Return the outcome of an installation.

    Raises:
        InvalidInput: It is neither INSTALLED nor FAILED.
    """
    try:
        return _OUTCOMES[outcome]
    except KeyError:
        raise InvalidInput("an installation is INSTALLED or FAILED: say which") from None


def device_to(view: DeviceView) -> fleet_pb2.Device:
    """Return the message of a device."""
    device = view.device
    expires = device.certificate_expires
    return fleet_pb2.Device(
        name=device.name, site=device.site, online=view.online, release_version=device.release_version,
        last_seen=base.time_to(device.last_seen), frames=device.frames, frames_per_second=device.frames_per_second,
        latency_ms=device.latency_ms, scope=view.scope, lacks=view.lacks, failed_frames=device.failed_frames,
        updates_stalled=device.updates_stalled, runtime=device.runtime,
        update_wait=_WAIT_MESSAGES.get(device.update_wait, fleet_pb2.UPDATE_WAIT_UNSPECIFIED),
        certificate_expires=None if expires is None else base.time_to(expires),
        detection=fleet_pb2.DetectionHealth(**device.detection.model_dump()) if device.detection else None,
        installs=[_install_to(install) for install in device.installs],
        sources=[
            fleet_pb2.Source(
                name=name, state=fleet_pb2.SourceState.Value(f"SOURCE_STATE_{state.name}"),
                drift=device.drifts.get(name, ""),
            )
            for name, state in sorted(device.sources.items())
        ],
    )  # fmt: skip


def rollout_to(report: RolloutReport) -> releases_pb2.Rollout:
    """Return the message of a release in its rollout."""
    release, rollout, health = report.release, report.release.rollout, report.health
    assert rollout is not None
    return releases_pb2.Rollout(
        version=release.version, scope=release.scope, status=release.status.value, percent=rollout.percent,
        steps=[step for step in rollout.steps if isinstance(step, int)],
        step_names=rollout.step_names, step_name=rollout.step_names[rollout.step],
        paused=rollout.paused, waited_s=rollout.waited_s, reached=health.reached, running=health.running,
        failed=health.failed, held=health.held, unhealthy=health.unhealthy,
        symptoms=[
            releases_pb2.Symptom(name=name.value, devices=count, example=health.examples[name])
            for name, count in health.symptoms.items()
        ],
        decisions=[
            releases_pb2.RolloutDecision(
                at=base.time_to(entry.at), actor=entry.values["actor"], reason=entry.values["reason"],
                figures=json.dumps(figures) if (figures := entry.values.get("figures")) else "",
            )
            for entry in report.decisions
        ],
    )  # fmt: skip


def _install_to(install: Install) -> fleet_pb2.InstallEvent:
    outcome = fleet_pb2.InstallOutcome.Value(f"INSTALL_OUTCOME_{install.outcome.name}")
    return fleet_pb2.InstallEvent(
        release_version=install.release_version, outcome=outcome, reason=install.reason, at=base.time_to(install.at)
    )
