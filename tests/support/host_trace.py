"""Whom a process and its children try to reach, as the operating system is asked: no meter of ours has a say in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.waiting import until

STRACE = shutil.which("strace")
_CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
_ADDRESS = re.compile(r"sin6?_port=htons\((?P<port>\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"(?P<host>[^\"]+)\"")
_ENDED = re.compile(r"^(?P<pid>\d+) +\+\+\+ (?:exited|killed)", re.MULTILINE)


class HostTrace:
    """Records every internet address that a process tree connects or sends to, names being looked up included."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def prefix(self) -> list[str]:
        """What to put before a command. The process keeps its number, so signals reach it and not the tracer."""
        return [] if STRACE is None else [STRACE, "-D", "-f", "--seccomp-bpf", "-e", _CALLS, "-o", str(self.path)]

    async def reached(self, pid: int) -> set[tuple[str, int]]:
        """Return host and port of whatever the tree of a process has tried to reach, once the process has ended.

        Port 0 stands for a socket that only asks which of its own addresses it would use, and sends nothing.
        """
        if STRACE is None:
            pytest.skip("strace is not installed, so nobody has watched whom the process reached")
        await until(lambda: str(pid) in {match["pid"] for match in _ENDED.finditer(self.path.read_text())})
        lines = [line for line in self.path.read_text().splitlines() if "AF_INET" in line]
        found = {(match["host"], int(match["port"])) for line in lines for match in _ADDRESS.finditer(line)}
        return {(host.removeprefix("::ffff:"), port) for host, port in found if port}
