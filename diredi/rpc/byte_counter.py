"""Bytes on the wire, by message type: a message counts as its serialized bytes and the 5 bytes of gRPC's frame.

Counted where a message is serialized for sending, so nothing is sent uncounted; a message that was serialized and then
could not be sent counts too. HTTP/2 headers and TLS records are not counted. Messages are never compressed.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from diredi.errors import CorruptData

FRAME_BYTES = 5


class EgressMeter:
    """Totals since the file was made: written after each message, so that a killed process loses no count."""

    def __init__(self, path: Path | None = None) -> None:
        """Goes on from the totals in `path`; without one, counts in memory. Raises CorruptData."""
        self._path = path
        self._bytes: Counter[str] = Counter()
        self._messages: Counter[str] = Counter()
        if path is not None and path.exists():
            self._load(path)

    def count(self, message_type: str, serialized_bytes: int) -> None:
        """One message of `message_type`, e.g. "diredi.v1.PutChunkRequest", of so many bytes before framing."""
        self._bytes[message_type] += serialized_bytes + FRAME_BYTES
        self._messages[message_type] += 1
        if self._path is not None:
            self._save(self._path)

    def totals(self) -> dict[str, int]:
        """Message type to bytes."""
        return dict(sorted(self._bytes.items()))

    def messages(self) -> dict[str, int]:
        """Message type to number of messages."""
        return dict(sorted(self._messages.items()))

    @property
    def total_bytes(self) -> int:
        return self._bytes.total()

    def _load(self, path: Path) -> None:
        try:
            kept = json.loads(path.read_text())
            self._bytes.update({str(name): int(n) for name, n in kept["bytes"].items()})
            self._messages.update({str(name): int(n) for name, n in kept["messages"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CorruptData(f"{path} is not a meter's file: move it away to count from zero") from None

    def _save(self, path: Path) -> None:
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps({"bytes": self.totals(), "messages": self.messages()}))
        part.replace(path)


class IngressMeter:
    """What a server received, by peer ("site/site-1") and message type; in memory, or in one file a peer."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._meters: dict[str, EgressMeter] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def count(self, peer: str, message_type: str, serialized_bytes: int) -> None:
        self._of(peer).count(message_type, serialized_bytes)

    def totals(self, peer: str) -> dict[str, int]:
        """Message type to bytes received from `peer`."""
        return self._of(peer).totals()

    def _of(self, peer: str) -> EgressMeter:
        if peer not in self._meters:
            path = None if self._folder is None else self._folder / (quote(peer, safe="") + ".json")
            self._meters[peer] = EgressMeter(path)
        return self._meters[peer]
