"""JSON as the standard defines it."""

from __future__ import annotations

import json
import math
from typing import Any


def to_json(value: object) -> str:
    """Return JSON as the standard defines it: NaN and infinity are stored as null."""
    return json.dumps(finite(value))


def finite(value: Any) -> Any:  # noqa: ANN401 - JSON has no type of its own
    """Return a value of JSON with null in the place of NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
