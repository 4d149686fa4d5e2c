"""Recorded bytes of an HTTP/2 client as the gRPC messages in them; an independent reading, with nothing of gRPC's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from hpack import Decoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, CONTINUATION = 0x0, 0x1, 0x9
PADDED, PRIORITY, END_HEADERS = 0x8, 0x20, 0x4


@dataclass
class Stream:
    """One call: its path, its other headers, and the bytes of its body."""

    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    def messages(self) -> Iterator[bytes]:
        """Raises AssertionError for a compressed message or one that is cut off."""
        at = 0
        while at < len(self.body):
            assert self.body[at] == 0, "a compressed message: what is in it would not be seen"
            size = int.from_bytes(self.body[at + 1 : at + 5], "big")
            assert at + 5 + size <= len(self.body), "a message is cut off"
            yield bytes(self.body[at + 5 : at + 5 + size])
            at += 5 + size


def streams_of(sent: bytes) -> list[Stream]:
    """The calls of one connection. Raises AssertionError where a byte is not accounted for."""
    assert sent.startswith(PREFACE)
    decoder, streams, block = Decoder(), {}, bytearray()
    at = len(PREFACE)
    while at < len(sent):
        assert at + 9 <= len(sent), "a frame is cut off"
        size, kind, flags = int.from_bytes(sent[at : at + 3], "big"), sent[at + 3], sent[at + 4]
        number = int.from_bytes(sent[at + 5 : at + 9], "big") & 0x7FFFFFFF
        payload = sent[at + 9 : at + 9 + size]
        assert len(payload) == size, "a frame is cut off"
        at += 9 + size
        if kind == DATA:
            streams[number].body += _unpadded(payload, flags)
        if kind in (HEADERS, CONTINUATION):
            block += _unpadded(payload, flags)[5 if flags & PRIORITY else 0 :] if kind == HEADERS else payload
            if flags & END_HEADERS:
                headers = {str(name): str(value) for name, value in decoder.decode(bytes(block))}
                streams.setdefault(number, Stream(headers.get(":path", ""), headers))
                block.clear()
    return list(streams.values())


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & PADDED else payload


def bytes_by_path(streams: list[Stream]) -> Counter[str]:
    """Path of a call to the bytes of its messages, frames of 5 bytes included."""
    total: Counter[str] = Counter()
    for stream in streams:
        total[stream.path] += sum(len(message) + 5 for message in stream.messages())
    return total
