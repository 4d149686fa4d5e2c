import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput
from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics
from diredi.labels import LabelSpace
from diredi.rpc import convert
from diredi.rpc.v1 import common_pb2 as pb
from diredi.rpc.v1 import fleet_pb2
from diredi.store.blobs import Blob

FIGURES = DetectionMetrics(
    map50=0.5, map50_95=0.25, precision=0.75, recall=1.0, f1=0.0, images=12, confidence=0.3,
    per_class={"car": ClassMetrics(ap50=0.5, ap50_95=0.25, boxes=40)},
)  # fmt: skip
LABELS = LabelSpace(version=3, names=("car", "person", "gabelstapler ü"))
BLOB = Blob("sha256:" + "0f" * 32, 123)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**52), 2**52)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_survives_the_wire(values):
    over_the_wire = Struct.FromString(convert.struct_to(values).SerializeToString())

    assert convert.struct_from(over_the_wire) == values


def test_whole_numbers_stay_whole():
    assert repr(convert.struct_from(convert.struct_to({"epochs": 3, "lr": 0.5}))) == "{'epochs': 3, 'lr': 0.5}"


@pytest.mark.parametrize("bad", [math.nan, math.inf, {1, 2}, object()])
def test_what_json_cannot_say_is_not_sent(bad):
    with pytest.raises(InvalidInput):
        convert.struct_to({"x": bad})


def test_nan_from_the_wire_is_refused_by_name():
    message = Struct()
    message.fields["lr"].number_value = math.nan

    with pytest.raises(InvalidInput, match="'lr'"):
        convert.struct_from(message)


def test_a_struct_that_goes_too_deep_is_refused():
    values = {}
    for _ in range(20):
        values = {"in": values}

    with pytest.raises(InvalidInput, match="levels"):
        convert.struct_from(convert.struct_to(values))


def test_metrics_survive_the_wire():
    assert convert.metrics_from(convert.metrics_to(FIGURES)) == FIGURES


def test_that_metrics_are_an_estimate_survives_the_wire_and_labels_cost_no_byte():
    estimate = FIGURES.model_copy(update={"judged_by": "oracle"})
    assert convert.metrics_from(convert.metrics_to(estimate)).estimated
    assert not convert.metrics_to(FIGURES).judged_by
    with pytest.raises(InvalidInput, match="'a coin'"):
        convert.metrics_from(pb.DetectionMetrics(judged_by="a coin"))


@pytest.mark.parametrize("bad", [math.nan, -0.01, 1.01, math.inf])
@pytest.mark.parametrize("field", ["map50", "map50_95", "precision", "recall", "f1"])
def test_a_figure_outside_0_to_1_is_refused_by_name(field, bad):
    message = convert.metrics_to(FIGURES)
    setattr(message, field, bad)

    with pytest.raises(InvalidInput, match=field):
        convert.metrics_from(message)


def test_a_class_figure_outside_0_to_1_is_refused_by_name():
    message = convert.metrics_to(FIGURES)
    message.per_class["car"].ap50 = 2

    with pytest.raises(InvalidInput, match="'car'"):
        convert.metrics_from(message)


def test_labels_survive_the_wire():
    assert convert.labels_from(convert.labels_to(LABELS)) == LABELS


@pytest.mark.parametrize(
    "classes",
    [[(1, "car")], [(0, "car"), (2, "bus")], [(0, "car"), (1, "car")], [(0, "")], [(0, "x" * 65)], [(0, "a\x00")]],
)
def test_unusable_labels_are_refused(classes):
    message = pb.LabelSpace(version=1, classes=[pb.LabelClass(id=i, name=name) for i, name in classes])

    with pytest.raises(InvalidInput):
        convert.labels_from(message)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "F" * 64, "../../etc/passwd", "md5:" + "0" * 32])
def test_a_blob_without_a_digest_is_refused(digest):
    with pytest.raises(InvalidInput, match="digest"):
        convert.blob_from(pb.BlobRef(digest=digest, bytes=1))


def test_times_are_in_utc_whatever_zone_they_came_from():
    moment = datetime(2026, 3, 1, 12, 30, 15, 250, timezone(timedelta(hours=5)))
    back = convert.time_from(convert.time_to(moment))

    assert back == moment
    assert back.tzinfo is UTC


def test_a_time_that_is_none_is_refused():
    with pytest.raises(InvalidInput, match="time"):
        convert.time_from(Timestamp(seconds=2**62))


@pytest.mark.parametrize("full", [True, False])
def test_a_model_survives_the_wire(full):
    spec = DetectorSpec(architecture="yolo11-w0.125", image_size=160, labels=LABELS)
    model = convert.Model(id=BLOB.digest, kind="student", spec=spec, weights=BLOB)
    if full:
        model = convert.Model(
            id=BLOB.digest, kind="tutor", spec=spec, weights=BLOB, onnx=BLOB, parent_id="p", cycle_id="c",
            presumed=FIGURES, created=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    assert convert.model_from(pb.Model.FromString(convert.model_to(model).SerializeToString())) == model


def test_a_model_with_an_image_size_that_no_detector_has_is_refused():
    spec = DetectorSpec(architecture="yolo11n", image_size=160, labels=LABELS)
    message = convert.model_to(convert.Model(id="x", kind="tutor", spec=spec, weights=None))
    message.image_size = 33

    with pytest.raises(InvalidInput, match="image_size"):
        convert.model_from(message)


def test_a_kind_that_the_contract_does_not_have_is_refused():
    with pytest.raises(InvalidInput, match="professor"):
        convert.kind_to("professor")
    with pytest.raises(InvalidInput):
        convert.kind_from(99)
    assert convert.kind_from(pb.MODEL_KIND_UNSPECIFIED) == ""


def test_a_release_survives_the_wire():
    release = convert.Release(
        version=2, student_id="s", onnx=BLOB, labels=LABELS, image_size=160, created=datetime(2026, 1, 1, tzinfo=UTC)
    )

    assert convert.release_from(convert.release_to(release)) == release


def test_an_empty_release_is_refused():
    with pytest.raises(InvalidInput, match="version"):
        convert.release_from(fleet_pb2.Release())
