"""What one party may hold of a server at once, so that no party can stop the others.

An identity has so many streams, downloads and calls, and begins so many a second; an address has so many connections.
Connections are counted by the operating system's own list of this process's sockets, because gRPC does not tell of a
connection before its first call.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from diredi.errors import NoRoom, RateLimited

MAX_MESSAGE_BYTES: Final = 9 * 2**20
"""An image of 8 MiB and what stands beside it; big bytes travel as blobs."""
_SOCKETS: Final = Path("/proc/self/fd")
_LOOK_EVERY_S: Final = 1.0
_BURST_S: Final = 2.0
"""So many seconds' worth of calls may come at once."""
_MANY_BUCKETS: Final = 1024
_GROWN_BY: Final = 16
"""New file descriptors that are reason enough to look at all connections."""


@dataclass(frozen=True)
class Limits:
    """What one party may hold at once.

    Attributes:
        streams: Streams an identity, downloads not counted.
        downloads: Downloads an identity.
        calls: Calls an identity that are not answered yet.
        calls_per_s: Calls and streams an identity may begin in a second; for a moment twice as many.
        connections: Connections an address; None: three quarters of the files that this process may open.
        handshake_s: How long a connection may take, in seconds, until its certificate is verified.
        message_bytes: The largest message that is received.
    """

    streams: int = 512
    downloads: int = 16
    calls: int = 64
    calls_per_s: float = 250.0
    connections: int | None = None
    handshake_s: float = 10.0
    message_bytes: int = MAX_MESSAGE_BYTES


class CallQuota:
    """Counts what each identity has under way. It belongs to one event loop and needs no lock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = {"stream": limits.streams, "download": limits.downloads, "call": limits.calls}
        self._under_way: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def hold(self, caller: str, kind: str) -> Iterator[None]:
        """Count one more while the block runs.

        Args:
            caller: The identity.
            kind: "stream", "download" or "call".

        Raises:
            NoRoom: The caller has as many as it may have.
        """
        key, most = (caller, kind), self._limits[kind]
        if self._under_way[key] >= most:
            raise NoRoom(f"{caller} has {most} {kind}s under way, which is all that it may have: end one first")
        self._under_way[key] += 1
        try:
            yield
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]


class CallRate:
    """A token bucket for each identity: what it does not use of its rate it may use at once within two seconds.

    It belongs to one event loop and needs no lock.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with full buckets.

        Args:
            limits: The rate.
            clock: Returns the time in seconds.
        """
        self._rate, self._most = limits.calls_per_s, max(1.0, _BURST_S * limits.calls_per_s)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """By identity how many calls it had left, and when that was."""
        self._look_at = _MANY_BUCKETS

    def take(self, caller: str) -> None:
        """Count one call.

        Raises:
            RateLimited: The caller has made too many; it says when there is room for the next one.
        """
        now = self._clock()
        left, at = self._buckets.get(caller, (self._most, now))
        left = min(self._most, left + (now - at) * self._rate)
        if left < 1:
            raise RateLimited(
                f"{caller} makes more than {self._rate:g} calls a second, which is all that it may: slow down",
                (1 - left) / self._rate,
            )
        self._buckets[caller] = left - 1, now
        if len(self._buckets) >= self._look_at:
            self._forget_full(now)

    def _forget_full(self, now: float) -> None:
        """Forget who could make a whole burst by now: that is what a caller begins with."""
        full_s = self._most / self._rate
        self._buckets = {caller: bucket for caller, bucket in self._buckets.items() if now - bucket[1] < full_s}
        self._look_at = max(_MANY_BUCKETS, 2 * len(self._buckets))


def raise_file_limit() -> int:
    """Let this process open as many files as the system allows it, and return that number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class ConnectionGuard:
    """Closes the newest connections of an address that has more than it may have; only where there is /proc (Linux)."""

    def __init__(self, port: int, limits: Limits) -> None:
        self._port = port
        self._most = limits.connections or max(1, raise_file_limit() * 3 // 4)
        self._open_files = 0
        self._first_seen: dict[int, int] = {}
        """The look at which a socket, by the kernel's number, was seen first."""
        self._looks = 0

    async def run(self) -> None:
        """Look every second until cancelled. All connections are looked at only after there are some more."""
        while _SOCKETS.is_dir():
            await asyncio.sleep(_LOOK_EVERY_S)
            open_files = sum(1 for _ in _SOCKETS.iterdir())
            if open_files < self._open_files + _GROWN_BY and open_files < self._most:
                self._open_files = min(open_files, self._open_files)
                continue
            self._open_files = open_files
            self.close_excess()

    def close_excess(self) -> int:
        """Close what is too much and return how many connections that were."""
        closed = 0
        for address, connections in self._by_address().items():
            excess = sorted(connections)[self._most :]
            if excess:
                structlog.get_logger().warning(
                    "connections_refused", address=address, most=self._most, count=len(excess)
                )
            for _, number in excess:
                with _duplicate(number) as connection:
                    if self._address_of(connection) == address:  # the number may be another connection's by now
                        connection.shutdown(socket.SHUT_RDWR)
                        closed += 1
        return closed

    def count(self, address: str) -> int:
        """Return how many connections an address has."""
        return len(self._by_address().get(address, ()))

    def _by_address(self) -> dict[str, list[tuple[int, int]]]:
        """Return of each connection since which look it is here and its file number, by address."""
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        seen, self._looks = self._first_seen, self._looks + 1
        self._first_seen = {}
        for entry in list(_SOCKETS.iterdir()):
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    with _duplicate(int(entry.name)) as connection:
                        if address := self._address_of(connection):
                            kernels_number = int(target[8:-1])
                            since = self._first_seen[kernels_number] = seen.get(kernels_number, self._looks)
                            found[address].append((since, int(entry.name)))
        return found

    def _address_of(self, connection: socket.socket) -> str:
        """Return the other side's address of a connection to our port; empty for any other socket."""
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return ""
        here, there = connection.getsockname(), connection.getpeername()
        return str(there[0]).removeprefix("::ffff:") if here[1] == self._port else ""


@contextmanager
def _duplicate(number: int) -> Iterator[socket.socket]:
    """Open a socket of this process a second time, under another number. Errors of the system end the block."""
    with suppress(OSError):
        copy = os.dup(number)
        try:
            connection = socket.socket(fileno=copy)
        except OSError:  # no socket any more
            os.close(copy)
            raise
        with connection:
            yield connection
