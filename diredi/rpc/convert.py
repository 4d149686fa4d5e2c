"""The boundary: messages become validated values, values become messages. InvalidInput names what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import ValidationError

from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput
from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics
from diredi.labels import Judge, LabelSpace
from diredi.rpc.v1 import common_pb2, fleet_pb2
from diredi.store.blobs import Blob, hex_of

Json = dict[str, Any]
_DEEPEST = 16


@dataclass(frozen=True)
class Model:
    """A detector in the registry, as the wire tells it; what is not known is None or empty."""

    id: str
    kind: str
    """"teacher", "tutor" or "student"."""
    spec: DetectorSpec
    weights: Blob | None
    onnx: Blob | None = None
    parent_id: str = ""
    cycle_id: str = ""
    presumed: DetectionMetrics | None = None
    created: datetime | None = None
    scope: str = ""
    """Whom it is for: "site:NAME", "group:NAME" or "fleet"; empty: not told."""


@dataclass(frozen=True)
class Release:
    """A versioned student that edge nodes may install."""

    version: int
    student_id: str
    onnx: Blob
    labels: LabelSpace
    image_size: int
    cycle_id: str = ""
    created: datetime | None = None
    scope: str = ""
    """Whom it is for: "site:NAME", "group:NAME" or "fleet"; empty: not told."""
    target: str = ""
    """Its path in the signed metadata; empty: not told."""
    challenge: bytes = b""
    """What proves, hashed together with the file, that the device that was told has the file."""


def labels_to(labels: LabelSpace) -> common_pb2.LabelSpace:
    """Return the message of a label space."""
    classes = [common_pb2.LabelClass(id=i, name=name) for i, name in enumerate(labels.names)]
    return common_pb2.LabelSpace(version=labels.version, classes=classes)


def labels_from(message: common_pb2.LabelSpace) -> LabelSpace:
    """Raises InvalidInput: ids that are not 0..n-1 in order, a name that is empty, twice, too long, not printable."""
    for expected, item in enumerate(message.classes):
        if item.id != expected:
            raise InvalidInput(f"class {item.name[:64]!r} has id {item.id} where {expected} comes next: number from 0")
    try:
        return LabelSpace(version=message.version, names=tuple(item.name for item in message.classes))
    except ValidationError as error:
        raise InvalidInput(f"the label space is not usable: {first_problem(error)}") from None


def metrics_to(metrics: DetectionMetrics) -> common_pb2.DetectionMetrics:
    """Return the message of detection metrics."""
    plain = metrics.model_dump(exclude={"per_class", "judged_by"})
    per_class = {name: common_pb2.ClassMetrics(**one.model_dump()) for name, one in metrics.per_class.items()}
    judged_by = "" if metrics.judged_by == "labels" else metrics.judged_by
    return common_pb2.DetectionMetrics(**plain, per_class=per_class, judged_by=judged_by)


def metrics_from(message: common_pb2.DetectionMetrics) -> DetectionMetrics:
    """Raises InvalidInput for a figure outside 0..1, NaN included, or a judge that is not known."""
    per_class = {}
    for name, one in message.per_class.items():
        _check_fractions(one, f"class {name[:64]!r}", "ap50", "ap50_95")
        per_class[name] = ClassMetrics(ap50=one.ap50, ap50_95=one.ap50_95, boxes=one.boxes)
    _check_fractions(message, "the figures", *_FRACTIONS)
    fractions = {name: getattr(message, name) for name in _FRACTIONS}
    if message.judged_by not in _JUDGES:
        raise InvalidInput(f"the figures are judged by {message.judged_by[:40]!r}: both sides need the same version")
    judge = _JUDGES[message.judged_by]
    return DetectionMetrics(**fractions, per_class=per_class, images=message.images, judged_by=judge)


_JUDGES: dict[str, Judge] = {"": "labels", "oracle": "oracle"}
_FRACTIONS = ("map50", "map50_95", "precision", "recall", "f1", "confidence")


def _check_fractions(message: object, where: str, *names: str) -> None:
    for name in names:
        value = getattr(message, name)
        if not 0.0 <= value <= 1.0:  # false for NaN too
            raise InvalidInput(f"{name} of {where} is {value}: it must be from 0 to 1")


def blob_to(blob: Blob) -> common_pb2.BlobRef:
    """Return the message of a blob."""
    return common_pb2.BlobRef(digest=blob.digest, bytes=blob.bytes)


def blob_from(message: common_pb2.BlobRef) -> Blob:
    """Raises InvalidInput when the digest is not one."""
    hex_of(message.digest)
    return Blob(message.digest, message.bytes)


def struct_to(values: Mapping[str, Any]) -> Struct:
    """Raises InvalidInput for what JSON cannot say (NaN, sets, objects)."""
    try:
        return json_format.ParseDict(json.loads(json.dumps(dict(values), allow_nan=False)), Struct())
    except (TypeError, ValueError, json_format.ParseError) as error:
        raise InvalidInput(f"these values cannot be sent as JSON: {error}") from None


def struct_from(message: Struct) -> Json:
    """Keys come sorted, whole numbers as int. Raises InvalidInput for NaN, infinity, and more than 16 levels."""
    return {name: _value_from(value, name, 1) for name, value in sorted(message.fields.items())}


def _value_from(value: Any, name: str, depth: int) -> Any:  # noqa: ANN401  (JSON)
    if depth > _DEEPEST:
        raise InvalidInput(f"{name!r} goes deeper than {_DEEPEST} levels: make it flatter")
    match value.WhichOneof("kind"):
        case "struct_value":
            return {key: _value_from(item, key, depth + 1) for key, item in sorted(value.struct_value.fields.items())}
        case "list_value":
            return [_value_from(item, name, depth + 1) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise InvalidInput(f"{name!r} is {number}: it must be a finite number")
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
    return None


def time_to(moment: datetime) -> Timestamp:
    """`moment` must know its time zone."""
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone(UTC))
    return stamp


def time_from(message: Timestamp) -> datetime:
    """In UTC. Raises InvalidInput for what is not a time."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{message.seconds} s and {message.nanos} ns are not a time: check the clock") from None


def kind_to(kind: str) -> common_pb2.ModelKind.ValueType:
    """`kind` is "teacher", "tutor" or "student". Raises InvalidInput for another."""
    try:
        return common_pb2.ModelKind.Value(f"MODEL_KIND_{kind.upper()}")
    except ValueError:
        raise InvalidInput(f"{kind[:40]!r} is no kind of model: use teacher, tutor or student") from None


def kind_from(kind: common_pb2.ModelKind.ValueType) -> str:
    """Empty for unspecified. Raises InvalidInput for a number that the contract does not have."""
    try:
        name = common_pb2.ModelKind.Name(kind).removeprefix("MODEL_KIND_").lower()
    except ValueError:
        raise InvalidInput(f"{kind} is no kind of model: both sides need the same version") from None
    return "" if name == "unspecified" else name


def spec_from(architecture: str, image_size: int, labels: common_pb2.LabelSpace) -> DetectorSpec:
    """Return the validated specification of a detector."""
    try:
        return DetectorSpec(architecture=architecture, image_size=image_size, labels=labels_from(labels))
    except ValidationError as error:
        raise InvalidInput(f"the model is not usable: {first_problem(error)}") from None


def model_to(model: Model) -> common_pb2.Model:
    """Return the message of a model."""
    message = common_pb2.Model(
        id=model.id,
        kind=kind_to(model.kind),
        architecture=model.spec.architecture,
        image_size=model.spec.image_size,
        labels=labels_to(model.spec.labels),
        parent_id=model.parent_id,
        cycle_id=model.cycle_id,
        scope=model.scope,
    )
    if model.weights is not None:
        message.weights.CopyFrom(blob_to(model.weights))
    if model.onnx is not None:
        message.onnx.CopyFrom(blob_to(model.onnx))
    if model.presumed is not None:
        message.presumed.CopyFrom(metrics_to(model.presumed))
    if model.created is not None:
        message.created.CopyFrom(time_to(model.created))
    return message


def model_from(message: common_pb2.Model) -> Model:
    """Raises InvalidInput that says what is wrong with it."""
    return Model(
        id=message.id,
        kind=kind_from(message.kind),
        spec=spec_from(message.architecture, message.image_size, message.labels),
        weights=blob_from(message.weights) if message.HasField("weights") else None,
        onnx=blob_from(message.onnx) if message.HasField("onnx") else None,
        parent_id=message.parent_id,
        cycle_id=message.cycle_id,
        presumed=metrics_from(message.presumed) if message.HasField("presumed") else None,
        created=time_from(message.created) if message.HasField("created") else None,
        scope=message.scope,
    )


def release_to(release: Release) -> fleet_pb2.Release:
    """Return the message of a release."""
    message = fleet_pb2.Release(
        version=release.version,
        student_id=release.student_id,
        onnx=blob_to(release.onnx),
        labels=labels_to(release.labels),
        image_size=release.image_size,
        cycle_id=release.cycle_id,
        scope=release.scope,
        target=release.target,
        challenge=release.challenge,
    )
    if release.created is not None:
        message.created.CopyFrom(time_to(release.created))
    return message


def release_from(message: fleet_pb2.Release) -> Release:
    """Raises InvalidInput that says what is wrong with it."""
    if message.version < 1 or message.image_size < 1:
        raise InvalidInput("a release needs a version and an image size above 0: both sides need the same version")
    return Release(
        version=message.version,
        student_id=message.student_id,
        onnx=blob_from(message.onnx),
        labels=labels_from(message.labels),
        image_size=message.image_size,
        cycle_id=message.cycle_id,
        created=time_from(message.created) if message.HasField("created") else None,
        scope=message.scope,
        target=message.target,
        challenge=message.challenge,
    )


def first_problem(error: ValidationError) -> str:
    """Return what was wrong first, with its place, for the end of a sentence."""
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}".removeprefix(": ")
