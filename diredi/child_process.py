"""Programs of ours as child processes: followed by the events in their log files, and ended with their parent.

python -m diredi.child_process MODULE [ARGUMENTS] runs a module, which gets SIGTERM when its parent dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
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


def die_with_parent(number: signal.Signals) -> None:
    """Ask the kernel to send this process a signal when its parent dies; Linux only, elsewhere nothing happens.

    Args:
        number: The signal to send, for example SIGTERM.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, number)


def main() -> None:
    """Become the module that the command line names, and get SIGTERM when the parent dies."""
    parent = os.getppid()
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)  # it died before the kernel was asked
    module = sys.argv[1]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
