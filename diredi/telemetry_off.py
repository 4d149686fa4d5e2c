"""Telemetry of the libraries that DiReDi uses is switched off, before any of them is loaded.

Importing `diredi` does it, so that every program of ours and every process that one of them starts runs without:

- ONNX Runtime 1.29 and newer sends events to a collector of its vendor's, and keeps a device id and the paths of models
  below `~/.cache`. It reads its variable once, when the library is loaded.
- Ray reports the use of a cluster that it starts.
- Ultralytics sends events and looks up two public hosts when it is imported. Its variable also keeps it from
  downloading weights, so a value that the user has set stays.
"""

from __future__ import annotations

import os
from typing import Final

FORCED: Final = {"ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
UNLESS_SET: Final = {"YOLO_OFFLINE": "true"}


def turn_off() -> None:
    """Set the variables that the libraries read; harmless when called again."""
    os.environ.update(FORCED)
    for name, value in UNLESS_SET.items():
        os.environ.setdefault(name, value)
