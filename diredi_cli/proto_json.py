"""Messages of the wire as plain values for `--json`: numbers are numbers, and states have their short names."""

# ruff: noqa: ANN401  (a field of a message may be anything that JSON can say)

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_INSTANT = "google.protobuf.Timestamp"
_STRUCT = "google.protobuf.Struct"


def message_to_dict(message: Message) -> dict[str, Any]:
    """Return every field of a message by name.

    A field that is not set is None, or empty where the wire knows no difference. Timestamps become ISO 8601 in UTC, and
    enums their names without the enum's own ("RELEASED", not "CYCLE_STATE_RELEASED").
    """
    return {field.name: _field(message, cast(FieldDescriptor, field)) for field in message.DESCRIPTOR.fields}


def _field(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name["value"]
        return {key: _single(value[key], entry) for key in sorted(value)}
    if field.is_repeated:
        return [_single(item, field) for item in value]
    if kind is not None and not message.HasField(field.name):
        return None
    return _single(value, field)


def _single(value: Any, field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return _message(value)
    if field.enum_type is not None:
        return short_name(field.enum_type, value)
    return value.hex() if isinstance(value, bytes) else value


def _message(value: Any) -> Any:
    name = value.DESCRIPTOR.full_name
    if name == _INSTANT:
        return to_datetime(value).isoformat(timespec="milliseconds")
    if name == _STRUCT:
        from google.protobuf.json_format import MessageToDict

        return _whole_numbers(MessageToDict(value))
    return message_to_dict(value)


def _whole_numbers(value: Any) -> Any:
    """Struct knows only doubles: 3.0 was a 3 for whoever wrote it."""
    if isinstance(value, dict):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_datetime(timestamp: Any) -> datetime:
    """Return a timestamp of the wire as a datetime in UTC."""
    return datetime.fromtimestamp(timestamp.seconds + timestamp.nanos / 1e9, UTC)


def short_name(enum: Any, number: int) -> str:
    """Return the short name of an enum's value: `CYCLE_STATE_RELEASED` of `CycleState` as "RELEASED".

    A number that this version does not know is returned as it is.
    """
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in enum.name).upper().lstrip("_") + "_"
    return str(value.name).removeprefix(prefix)
