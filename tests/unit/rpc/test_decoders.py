"""Whatever a stranger sends, a decoder gives a value or one of our own errors."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_server import convert as cloud
from diredi.codecs.container import MAGIC
from diredi.detectors.spec import DetectorSpec
from diredi.errors import DirediError, InvalidInput
from diredi.knowledge.check import check_gap_file
from diredi.knowledge.gap import Gap, GapNote
from diredi.labels import LabelSpace
from diredi.rpc import convert
from diredi.rpc.v1 import common_pb2, cycles_pb2, fleet_pb2, sites_pb2
from diredi.store.weights import WeightMap, read_metadata, read_schema
from user_domain.tasks import parse_task

LABELS = LabelSpace(names=("car", "person"))
STRINGS = st.one_of(
    st.text(max_size=20), st.sampled_from(["car", "sha256:" + "0" * 64, "\x1b[2J", "\x00", "yolo11n", "c/extract"])
)
SCALARS = {
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1) | st.integers(0, 3),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1) | st.integers(0, 3),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 20),
}


@st.composite
def messages(draw: st.DrawFn, descriptor: Any, depth: int = 4) -> Message:
    """Any message of this type, as far as the wire can carry it."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not draw(st.integers(0, 3)):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = draw(STRINGS), field.message_type.fields_by_name["value"]
            if value.message_type is None:
                getattr(message, field.name)[key] = draw(SCALARS[value.cpp_type])
            elif depth:
                getattr(message, field.name)[key].CopyFrom(draw(messages(value.message_type, depth - 1)))
        elif field.message_type is not None:
            if depth:
                inner = draw(messages(field.message_type, depth - 1))
                target = getattr(message, field.name)
                (target.add() if field.is_repeated else target).CopyFrom(inner)
        else:
            kind = field.cpp_type
            text = STRINGS if field.type == FieldDescriptor.TYPE_STRING else st.binary(max_size=8)
            drawn = draw(text if kind == FieldDescriptor.CPPTYPE_STRING else SCALARS[kind])
            if field.is_repeated:
                getattr(message, field.name).append(drawn)
            else:
                setattr(message, field.name, drawn)
    return message


DECODERS: dict[str, tuple[type[Message], Callable[[Any], object]]] = {
    "manifest": (cycles_pb2.GapManifest, cloud.manifest_from),
    "progress": (cycles_pb2.Progress, cloud.progress_from),
    "heartbeat": (fleet_pb2.HeartbeatRequest, cloud.vitals_from),
    "metrics": (common_pb2.DetectionMetrics, convert.metrics_from),
    "model": (common_pb2.Model, convert.model_from),
    "release": (fleet_pb2.Release, convert.release_from),
    "task": (sites_pb2.Task, parse_task),
}


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_message_becomes_a_value_or_a_refusal(name: str, data: st.DataObject) -> None:
    kind, decode = DECODERS[name]
    message = data.draw(messages(kind.DESCRIPTOR))
    try:
        decode(message)
    except DirediError as error:
        assert str(error)


HEADERS = st.fixed_dictionaries(
    {
        "codec": st.sampled_from(["fp32-zstd", "int8-row-zstd", "x"]),
        "arrays": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["w", "v"]),
                    "dtype": st.sampled_from(["float32", "float16", "float64", "int8", "bool", "int64"]),
                    "shape": st.lists(st.sampled_from([0, 1, 2, 3, 2**39]), max_size=8),
                    "stored": st.sampled_from(["raw", "float16", "int8-row"]),
                }
            ),
            max_size=3,
        ),
        "metadata": st.dictionaries(
            st.just("diredi.gap"),
            st.sampled_from(["", "{}", "[" * 100_000, "null", "1e999"])
            | st.just(GapNote(base_id="b", labels=LABELS, base_classes=2).model_dump_json()),
        ),
    }
)


def packed(header: object, payload: bytes) -> bytes:
    """A file whose digest is right, which everybody can compute."""
    text = json.dumps(header).encode()
    body = len(text).to_bytes(4, "little") + text + zstandard.ZstdCompressor().compress(payload)
    return MAGIC + hashlib.sha256(body).digest() + body


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(header=HEADERS, payload=st.binary(max_size=40), fits=st.booleans())
def test_any_gap_file_becomes_a_gap_or_a_refusal(header: dict[str, Any], payload: bytes, fits: bool) -> None:
    if fits:
        sizes = {"float64": 8, "int64": 8, "float32": 4, "float16": 2, "int8": 1, "bool": 1}
        total = 0
        for array in header["arrays"]:
            rows = array["shape"][0] if array["shape"] else 0
            each = {"raw": sizes[array["dtype"]], "float16": 2, "int8-row": 1}[array["stored"]]
            total += math.prod(array["shape"]) * each + (4 * rows if array["stored"] == "int8-row" else 0)
        payload = payload[:1] * total if total < 10_000 else payload
    try:
        Gap.from_bytes(packed(header, payload), max_bytes=10_000)
    except DirediError as error:
        assert str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_weights_file_becomes_weights_or_a_refusal(data: st.DataObject, tmp_path: Path) -> None:
    good = bytearray(WeightMap({"w": np.ones((2, 3), np.float32)}).to_bytes({"diredi.spec": "[" * 5000}))
    for place in data.draw(st.lists(st.integers(0, len(good) - 1), max_size=4)):
        good[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "weights"
    path.write_bytes(good[: data.draw(st.integers(0, len(good)))])
    for decode in (WeightMap.load, read_schema, read_metadata, DetectorSpec.of_file):
        try:
            decode(path)
        except DirediError as error:
            assert str(error)


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1e30, 1e9])
def test_a_gap_whose_values_would_destroy_a_merge_is_refused(value: float, tmp_path: Path) -> None:
    spec = DetectorSpec(architecture="yolo11n", image_size=64, labels=LABELS)
    base, path = tmp_path / "base", tmp_path / "gap"
    WeightMap({"model.0.conv.weight": np.ones((2, 3), np.float32)}).save(base, spec.to_metadata())
    for one, refused in ((0.5, False), (value, True)):
        note = GapNote(base_id="b", labels=LABELS, base_classes=2)
        gap = Gap(WeightMap({"model.0.conv.weight": np.full((2, 3), one, np.float32)}), note)
        path.write_bytes(gap.to_bytes("fp32-zstd"))
        if refused:
            with pytest.raises(InvalidInput, match="conv"):
                check_gap_file(path, "fp32-zstd", base, "b", LABELS)
        else:
            assert check_gap_file(path, "fp32-zstd", base, "b", LABELS).bytes
