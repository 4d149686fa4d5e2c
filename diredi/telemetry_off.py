"""Telemetry of the libraries that DiReDi uses is switched off, before any of them is loaded.

Importing `diredi` does it, so that every program of ours and every process that one of them starts runs without:

- ONNX Runtime 1.29 and newer sends events to a collector of its vendor's, and keeps a device id and the paths of models
  below `~/.cache`. It reads its variable once, when the library is loaded.
- OpenVINO tells Google Analytics of each import, through a package that asks no variable. It does without that package
  where it is not there, so for every program of ours it is not.
- Ray reports the use of a cluster that it starts.
- Ultralytics sends events and looks up two public hosts when it is imported. Its variable also keeps it from
  downloading weights, so a value that the user has set stays.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Final, cast

FORCED: Final = {"ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
UNLESS_SET: Final = {"YOLO_OFFLINE": "true"}
NEVER_IMPORTED: Final = ("openvino_telemetry",)


def turn_off() -> None:
    """Set the variables that the libraries read, and hide what cannot be switched off; harmless when called again."""
    os.environ.update(FORCED)
    for name, value in UNLESS_SET.items():
        os.environ.setdefault(name, value)
    for name in NEVER_IMPORTED:
        # Python's own way to say that a module must not be imported: to try it is an ImportError.
        sys.modules.setdefault(name, cast(ModuleType, None))
