"""`Codec`: the one interface that turns a `WeightMap` into bytes and back, and the registry of its variants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from diredi.errors import InvalidInput
from diredi.store.weights import Array, WeightMap

MAX_DECODED_BYTES = 2**30
"""What a file may unpack to unless a caller says otherwise: twice the weights of the largest YOLO."""


class Codec(Protocol):
    """A way to write weights as bytes; the bytes describe themselves, and equal input gives equal bytes."""

    @property
    def name(self) -> str:
        """Return the name that manifests use.

        It is never given to another format, so that every released file stays readable.
        """
        ...

    def encode(self, weights: WeightMap, metadata: Mapping[str, str] | None = None) -> bytes:
        """Write weights as bytes.

        Args:
            weights: float32 arrays and int64 counters.
            metadata: Texts to store beside the arrays.

        Returns:
            The encoded file.

        Raises:
            InvalidInput: A value is NaN or infinite, or an array has a type that weights do not have.
        """
        ...

    def decode(self, data: bytes, max_bytes: int = MAX_DECODED_BYTES) -> WeightMap:
        """Read weights from bytes.

        Args:
            data: The encoded file.
            max_bytes: The most bytes that the arrays may take; more is refused before it is allocated.

        Returns:
            The names, types and shapes that were encoded.

        Raises:
            CorruptData: The bytes are damaged, of another codec, or would take more than `max_bytes`.
        """
        ...

    def largest_error(self, array: Array) -> Array:
        """Return for each value how far the decoded one may be from it.

        Args:
            array: float32 values of any shape.

        Returns:
            The bound for each value, in the shape of the array.
        """
        ...


CODECS: dict[str, Codec] = {}


def register(codec: Codec) -> None:
    """Register a codec under its name.

    Raises:
        InvalidInput: The name is taken; two formats under one name could never be told apart.
    """
    if codec.name in CODECS:
        raise InvalidInput(f"codec {codec.name!r} is registered twice: give the new one another name")
    CODECS[codec.name] = codec


def codec_named(name: str) -> Codec:
    """Return the codec with a name.

    Raises:
        InvalidInput: There is no such codec; the message lists the known names.
    """
    try:
        return CODECS[name]
    except KeyError:
        raise InvalidInput(f"codec {name!r} is not known here: use one of {', '.join(sorted(CODECS))}") from None
