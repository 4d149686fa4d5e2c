"""Codecs that choose, array by array, one of the three ways to store it.

fp32-zstd stores every value as it is. It is lossless, a tenth smaller, and the reference that other codecs are measured
against.

int8-row-zstd takes a byte a value and one scale a row: a quarter of fp32, and nothing measurable is lost. Convolutions
are int8. Biases, norms, batch-norm statistics and short rows are float16, which costs little there and hurts where it
is missing. Integers, and what float16 cannot hold, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from diredi.codecs.base import MAX_DECODED_BYTES
from diredi.codecs.container import Storage, pack, unpack
from diredi.codecs.storage import header_of, largest_error, restored, stored
from diredi.store.weights import Array, WeightMap

_SHORTEST_ROW: Final = 8
_LARGEST_FLOAT16: Final = 60_000.0


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


def _small(array: Array) -> Storage:
    if array.dtype != np.float32:
        return "raw"
    if array.ndim > 1 and array[:1].size >= _SHORTEST_ROW:
        return "int8-row"
    return "float16" if np.abs(array).max(initial=0) < _LARGEST_FLOAT16 else "raw"


DENSE: Final = PackedCodec("fp32-zstd", lambda _: "raw")
INT8_ROW: Final = PackedCodec("int8-row-zstd", _small)
