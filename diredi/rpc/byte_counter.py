"""Bytes on the wire, by message type: a message counts as its serialized bytes and the 5 bytes of gRPC's frame.

Counted where a message is serialized for sending, so nothing is sent uncounted; a message that was serialized and then
could not be sent counts too. HTTP/2 headers and TLS records are not counted. Messages are never compressed.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import structlog

from diredi.errors import DirediError
from diredi.store.files import atomic_write, make_folder, read_state

FRAME_BYTES = 5
SAVE_EVERY_S: Final = 0.5
"""The most of counting that a killed process loses, beside the time that its disk takes for a write."""
DAYS: Final = 366
"""How many days are kept apart."""
_RETRY_S: Final = 5.0
_CLOSE_S: Final = 1.0


class EgressMeter:
    """Totals since `since`. Counting is done in memory: no disk decides whether a message is sent.

    A thread saves what was counted to `path`, at once and then every `SAVE_EVERY_S` while there is more. A disk that
    does not take it is said in the log and in `problem`, and tried again until it does.
    """

    def __init__(
        self, path: Path | None = None, on_count: Callable[[], None] | None = None, *, by_day: bool = False
    ) -> None:
        """Go on from the totals in `path`, or count in memory alone.

        Args:
            path: Where the totals are saved. A damaged file is set aside and counting begins at zero, which `problem`
                then says.
            on_count: Called after each count in place of a thread of this meter's own; whoever passes it calls `save`.
            by_day: Whether to keep the bytes of each of the last days, too.
        """
        self._path, self._by_day = path, by_day
        self._lock = threading.Lock()
        self._counts, self._note = _begun(path)
        self._unsaved, self._trouble = False, ""
        self._saver = None if path is None or on_count is not None else _Saver(self.save)
        self._on_count = on_count or (self._saver.soon if self._saver is not None else _nothing)

    def count(self, message_type: str, serialized_bytes: int) -> None:
        """One message of `message_type`, e.g. "diredi.v1.PutChunkRequest", of so many bytes before framing."""
        with self._lock:
            self._counts.by_bytes[message_type] += serialized_bytes + FRAME_BYTES
            self._counts.by_messages[message_type] += 1
            if self._by_day:
                self._counts.count_today(message_type, serialized_bytes + FRAME_BYTES)
            self._unsaved = True
        self._on_count()

    def totals(self) -> dict[str, int]:
        """Message type to bytes."""
        with self._lock:
            return dict(sorted(self._counts.by_bytes.items()))

    def messages(self) -> dict[str, int]:
        """Message type to number of messages."""
        with self._lock:
            return dict(sorted(self._counts.by_messages.items()))

    def days(self) -> dict[str, dict[str, int]]:
        """Day in UTC, such as "2026-11-30", to message type to bytes, oldest first; the last DAYS of them."""
        with self._lock:
            return {day: dict(sorted(counts.items())) for day, counts in sorted(self._counts.days.items())}

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all messages."""
        return sum(self.totals().values())

    @property
    def since(self) -> str:
        """When counting began, in ISO form; empty for a file of an earlier version, which does not say it."""
        return self._counts.since

    @property
    def problem(self) -> str:
        """Why these totals are not all there is, or may not outlive this process; empty as a rule."""
        return self._trouble or (self._saver.problem if self._saver is not None else "") or self._note

    def save(self) -> bool:
        """Write the totals to disk if there is anything new; return False where the disk does not take them."""
        with self._lock:
            if self._path is None or not self._unsaved:
                return True
            said, self._unsaved = self._counts.to_json(), False
        try:
            atomic_write(self._path, said)
        except (DirediError, OSError) as error:
            self._unsaved = True
            if not self._trouble:
                structlog.get_logger().warning("byte_counts_not_saved", path=str(self._path), error=str(error))
            self._trouble = f"byte counts cannot be saved ({error}): they are lost if this process ends"
            return False
        self._trouble = ""
        return True

    def close(self) -> None:
        """Save for the last time. Waits for a disk that hangs no longer than a second."""
        if self._saver is not None:
            self._saver.close()


def count_sent(serializer: Callable[[Any], bytes], meter: EgressMeter | None) -> Callable[[Any], bytes]:
    """Return a serializer that counts what it makes: to ask a message for its size is to serialize it once more.

    Args:
        serializer: Turns a message into bytes.
        meter: Counts them; None counts nothing.
    """
    if meter is None:
        return serializer

    def serialize(message: Any) -> bytes:  # noqa: ANN401 - gRPC gives serializers no type
        data = serializer(message)
        meter.count(message.DESCRIPTOR.full_name, len(data))
        return data

    return serialize


class IngressMeter:
    """What a server received, by caller ("site/site-1") and message type; in memory, or in one file a caller."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._meters: dict[str, EgressMeter] = {}
        self._saver = _Saver(self.save)
        if folder is not None:
            with suppress(DirediError, OSError):  # saving says it, and counting goes on
                make_folder(folder)

    def count(self, caller: str, message_type: str, serialized_bytes: int) -> None:
        """One message from `caller`, of so many bytes before framing."""
        self._of(caller).count(message_type, serialized_bytes)

    def totals(self, caller: str) -> dict[str, int]:
        """Message type to bytes received from `caller`."""
        return self._of(caller).totals()

    def save(self) -> bool:
        """Write every caller's totals to disk where there is anything new; return False where some were not taken."""
        saved = [meter.save() for meter in list(self._meters.values())]
        return all(saved)

    def close(self) -> None:
        """Save for the last time. Waits for a disk that hangs no longer than a second."""
        self._saver.close()

    def _of(self, caller: str) -> EgressMeter:
        if caller not in self._meters:
            if self._folder is None:
                self._meters[caller] = EgressMeter()
            else:
                self._meters[caller] = EgressMeter(self._folder / (quote(caller, safe="") + ".json"), self._saver.soon)
        return self._meters[caller]


@dataclass
class _Counts:
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    by_bytes: Counter[str] = field(default_factory=Counter)
    by_messages: Counter[str] = field(default_factory=Counter)
    days: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: bytes) -> _Counts:
        said = json.loads(data)
        days = {str(day): _counter(counts) for day, counts in said.get("days", {}).items()}
        return cls(str(said.get("since", "")), _counter(said["bytes"]), _counter(said["messages"]), days)

    def to_json(self) -> str:
        said: dict[str, Any] = {"since": self.since, "bytes": self.by_bytes, "messages": self.by_messages}
        return json.dumps(said | ({"days": self.days} if self.days else {}), sort_keys=True)

    def count_today(self, message_type: str, count: int) -> None:
        today = datetime.now(UTC).date().isoformat()
        if today not in self.days:
            kept = sorted(self.days)[1 - DAYS :]
            self.days = {day: self.days[day] for day in kept} | {today: Counter()}
        self.days[today][message_type] += count


def _counter(said: dict[str, int]) -> Counter[str]:
    """Raises one of the usual errors of parsing for anything but counts."""
    found = Counter({str(name): int(count) for name, count in said.items()})
    if any(count < 0 for count in found.values()):
        raise ValueError("a count below zero")
    return found


def _begun(path: Path | None) -> tuple[_Counts, str]:
    """What to go on from, and what there is to say about it."""
    try:
        if path is None or not path.exists():
            return _Counts(), ""
        counts = read_state(path, _Counts.from_json)
    except (DirediError, OSError) as error:
        return _Counts(), f"{error}; bytes are counted from zero since this process began"
    if counts is not None:
        return counts, ""
    fresh = _Counts()
    return fresh, f"{path} was damaged and is set aside: bytes are counted since {fresh.since}"


def _nothing() -> None:
    """Counting in memory alone."""


class _Saver:
    """Calls `save` in a thread of its own, soon after it was asked to, and again until it returns True."""

    def __init__(self, save: Callable[[], bool]) -> None:
        self._save = save
        self._wanted, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="byte-counts", daemon=True)
        self._starting = threading.Lock()
        self.problem = ""
        """Why there is no thread that saves; empty as a rule."""

    def soon(self) -> None:
        self._wanted.set()
        with self._starting:
            if self._thread.ident is None and not self._closed.is_set():
                try:
                    self._thread.start()
                except RuntimeError as error:  # no room for one more thread: the next count tries again
                    if not self.problem:
                        structlog.get_logger().warning("byte_counts_not_saved", error=str(error))
                    self.problem = f"byte counts cannot be saved ({error}): they are lost if this process ends"
                else:
                    self.problem = ""

    def close(self) -> None:
        self._closed.set()
        self._wanted.set()
        with self._starting:
            started = self._thread.ident is not None
        if started:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wanted.wait()
            self._wanted.clear()
            saved = self._save()
            if not saved:
                self._wanted.set()
            self._closed.wait(SAVE_EVERY_S if saved else _RETRY_S)
        self._save()
