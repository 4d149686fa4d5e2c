"""Ports of this machine."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from itertools import count

# Below those that the system hands out by itself, and for each worker its own: a port that was free a moment ago is
# still free when the service under test takes it.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SIZE = 1000
_numbers = count(os.getpid())


def free_ports(wanted: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has, no two alike."""
    with ExitStack() as stack:
        return [stack.enter_context(_taken()).getsockname()[1] for _ in range(wanted)]


def free_port() -> int:
    return free_ports(1)[0]


def _taken() -> socket.socket:
    for _ in range(_SIZE):
        port = 20_000 + _SIZE * (_WORKER % 12) + next(_numbers) % _SIZE
        probe = socket.socket()
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.close()
        else:
            return probe
    raise OSError("no port is free for tests")
