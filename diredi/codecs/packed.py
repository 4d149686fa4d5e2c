"""Codecs that choose, array by array, one of three ways to store it.

An array is stored as it is, as float16, or as int8 with a float32 scale for each row (axis 0).

fp32-zstd stores every value as it is. It is lossless, a tenth smaller, and the reference that other codecs are measured
against.

int8-row-zstd takes a byte a value and one scale a row: a quarter of fp32, and nothing measurable is lost. Convolutions
are int8. Biases, norms, batch-norm statistics and short rows are float16, which costs little there and hurts where it
is missing. Integers, and what float16 cannot hold, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from diredi.codecs.base import MAX_DECODED_BYTES
from diredi.codecs.container import ArrayHeader, DType, Header, Storage, pack, unpack
from diredi.decoding import decoding
from diredi.errors import CorruptData, InvalidInput
from diredi.store.weights import Array, WeightMap

_LEVELS = 127
_STEPS_PER_RMS = 8
"""How fine a step is: an eighth of the row's root mean square, which leaves an error 29 dB below the row and costs 5
bits a value once zstd has seen them. Finer steps are noise that travels; int4 (17 dB) measured no loss either."""
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
        with decoding("the encoded weights", CorruptData):
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


def header_of(name: str, array: Array, storage: Storage) -> ArrayHeader:
    """Return the header of one array for a way of storing it.

    Raises:
        InvalidInput: The array has a type that weights do not have.
    """
    if str(array.dtype) not in get_args(DType):
        raise InvalidInput(f"{name!r} is of type {array.dtype}, which weights do not have: use float32")
    return ArrayHeader.model_validate(
        {"name": name, "dtype": str(array.dtype), "shape": array.shape, "stored": storage}
    )


def stored(header: ArrayHeader, array: Array) -> bytes:
    """The bytes of one array, little-endian."""
    if header.stored == "raw":
        return np.ascontiguousarray(_little(array)).tobytes()
    if header.stored == "float16":
        return np.ascontiguousarray(array).astype("<f2").tobytes()
    scales = row_scales(array)
    rows = array.reshape(len(array), -1).astype(np.float64)
    divisors = np.where(scales > 0, scales, np.inf)[:, None].astype(np.float64)
    steps = np.clip(np.rint(rows / divisors), -_LEVELS, _LEVELS).astype(np.int8)
    return _little(scales).tobytes() + steps.tobytes()


def restored(header: Header, payload: bytes) -> WeightMap:
    """The arrays again. Raises CorruptData when a scale is not a number."""
    arrays: dict[str, Array] = {}
    at = 0
    for entry in header.arrays:
        arrays[entry.name] = _one(entry, payload[at : at + entry.stored_bytes])
        at += entry.stored_bytes
    return WeightMap(arrays)


def row_scales(array: Array) -> NDArray[np.float32]:
    """Return the width of one step in each row, wide enough for the row's largest value.

    Args:
        array: float32 values; the first axis counts the rows.

    Returns:
        float32 [rows]; 0 for a row that holds nothing float32 can divide.
    """
    rows = np.abs(array.reshape(len(array), -1).astype(np.float64))
    largest = rows.max(axis=1, initial=0)
    share = rows / np.where(largest > 0, largest, 1)[:, None]  # squares of the values themselves may not be finite
    rms = largest * np.sqrt(np.square(share).sum(axis=1) / max(rows.shape[1], 1))
    return np.asarray(np.maximum(largest / _LEVELS, rms / _STEPS_PER_RMS), dtype=np.float32)


def largest_error(array: Array, storage: Storage) -> Array:
    """Return for each value how far the restored one may be from it."""
    if storage == "raw":
        return np.zeros(array.shape)
    if storage == "float16":
        return np.maximum(np.abs(array.astype(np.float64)) * 2.0**-11, 2.0**-25)
    step = row_scales(array).astype(np.float64).reshape(-1, *[1] * (array.ndim - 1))
    return np.broadcast_to(0.5001 * step + _LEVELS * 2.0**-149, array.shape)


def _one(entry: ArrayHeader, data: bytes) -> Array:
    if entry.stored == "raw":
        flat = np.frombuffer(data, dtype=np.dtype(entry.dtype).newbyteorder("<")).astype(entry.dtype)
        return flat.reshape(entry.shape)
    if entry.stored == "float16":
        return np.frombuffer(data, dtype="<f2").astype(np.float32).reshape(entry.shape)
    rows = entry.shape[0]
    scales = np.frombuffer(data[: 4 * rows], dtype="<f4").astype(np.float64)
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise CorruptData(f"a scale of {entry.name!r} is not a number: encode the weights again")
    if entry.size == 0:
        return np.zeros(entry.shape, np.float32)
    steps = np.frombuffer(data[4 * rows :], dtype=np.int8).reshape(rows, -1)
    limit = float(np.finfo(np.float32).max)
    return np.clip(steps * scales[:, None], -limit, limit).astype(np.float32).reshape(entry.shape)


def _little(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
