"""A codec that chooses, array by array, one of the three ways to store it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diredi.codecs.base import MAX_DECODED_BYTES
from diredi.codecs.container import Storage, pack, unpack
from diredi.codecs.storage import header_of, largest_error, restored, stored
from diredi.store.weights import Array, WeightMap


@dataclass(frozen=True)
class PackedCodec:
    """`storage` says how each array is stored; everything else is the container's."""

    name: str
    storage: Callable[[Array], Storage]

    def encode(self, weights: WeightMap, metadata: Mapping[str, str] | None = None) -> bytes:
        """See `Codec.encode`."""
        weights.check_finite()
        arrays = [header_of(name, array, self.storage(array)) for name, array in weights.items()]
        return pack(self.name, arrays, b"".join(stored(a, weights[a.name]) for a in arrays), metadata)

    def decode(self, data: bytes, max_bytes: int = MAX_DECODED_BYTES) -> WeightMap:
        """See `Codec.decode`."""
        return restored(*unpack(data, self.name, max_bytes))

    def largest_error(self, array: Array) -> Array:
        """See `Codec.largest_error`."""
        return largest_error(array, self.storage(array))
