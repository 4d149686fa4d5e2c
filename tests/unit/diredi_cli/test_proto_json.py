from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from diredi.rpc.convert import struct_to
from diredi.rpc.v1 import common_pb2, cycles_pb2, fleet_pb2
from diredi_cli.proto_json import message_to_dict, to_datetime
from diredi_cli.watch import state_of


def test_a_message_becomes_values_that_json_knows():
    at = Timestamp(seconds=1_700_000_000, nanos=250_000_000)
    cycle = cycles_pb2.Cycle(
        id="c1",
        state=cycles_pb2.CYCLE_STATE_ROLLED_BACK,
        history=[cycles_pb2.Transition(state=cycles_pb2.CYCLE_STATE_REQUESTED, at=at, actor="operator/a")],
        recipe=struct_to({"coreset_images": 200, "lam": 0.5, "layers": ["head"]}),
        release_version=3,
    )
    said = message_to_dict(cycle)
    assert said["state"] == "ROLLED_BACK"
    assert said["history"][0]["at"] == "2023-11-14T22:13:20.250+00:00"
    assert said["recipe"] == {"coreset_images": 200, "lam": 0.5, "layers": ["head"]}
    assert isinstance(said["recipe"]["coreset_images"], int)
    assert said["release_version"] == 3
    assert said["gap"] is None and said["progress"] is None


def test_maps_and_numbers_of_64_bits_stay_what_they_are():
    metrics = common_pb2.DetectionMetrics(per_class={"car": common_pb2.ClassMetrics(ap50=0.5, boxes=7)})
    assert message_to_dict(metrics)["per_class"]["car"] == {"ap50": 0.5, "ap50_95": 0.0, "boxes": 7}
    assert message_to_dict(fleet_pb2.Device(frames=2**40))["frames"] == 2**40


def test_a_state_of_a_newer_version_is_told_by_its_number():
    assert state_of(cycles_pb2.Cycle(state=77)) == "77"  # type: ignore[arg-type]


def test_a_timestamp_is_aware():
    assert to_datetime(Timestamp(seconds=0)) == datetime(1970, 1, 1, tzinfo=UTC)
