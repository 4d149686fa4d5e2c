"""A service of ours as a child process, followed by the events in its log file."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LOG_LINES_SHOWN = 12


@dataclass
class ChildProcess:
    """One process and its log file, which holds one JSON object per line."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""
    _read: int = field(default=0, repr=False)

    def new_events(self) -> Iterator[dict[str, Any]]:
        """Yield the events logged since the last call; lines that are not JSON objects are skipped."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # not written to its end yet
                self._read += len(line)
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event

    def last_lines(self) -> list[str]:
        """Return the last lines of the log, for a person to read."""
        return self.log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
