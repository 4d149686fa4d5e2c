"""`Codec`: the one interface that turns a `WeightMap` into bytes and back, and the registry of its variants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from diredi.errors import InvalidInput
from diredi.store.weights import Array, WeightMap

MAX_DECODED_BYTES = 2**30
"""What a file may unpack to unless a caller says otherwise: twice the weights of the largest YOLO."""


class Codec(Protocol):
    """A way to write weights. The bytes describe themselves; equal input gives equal bytes."""

    @property
    def name(self) -> str:
        """What a manifest calls it. Never reused for another format: files of every released one stay readable."""
        ...

    def encode(self, weights: WeightMap, metadata: Mapping[str, str] | None = None) -> bytes:
        """Raises InvalidInput when a value is NaN or infinite, or of a type that weights do not have."""
        ...

    def decode(self, data: bytes, max_bytes: int = MAX_DECODED_BYTES) -> WeightMap:
        """The same names, types and shapes that were encoded. Raises CorruptData when `data` is damaged, of another
        codec, or would unpack to more than `max_bytes`; nothing of that size is ever allocated."""
        ...

    def largest_error(self, array: Array) -> Array:
        """For each value of `array`, how far the decoded one may be from it. What the contract tests hold it to."""
        ...


CODECS: dict[str, Codec] = {}


def register(codec: Codec) -> None:
    """Raises InvalidInput when the name is taken: two formats under one name could never be told apart again."""
    if codec.name in CODECS:
        raise InvalidInput(f"codec {codec.name!r} is registered twice: give the new one another name")
    CODECS[codec.name] = codec


def codec_named(name: str) -> Codec:
    """Raises InvalidInput that lists the known names."""
    try:
        return CODECS[name]
    except KeyError:
        raise InvalidInput(f"codec {name!r} is not known here: use one of {', '.join(sorted(CODECS))}") from None
