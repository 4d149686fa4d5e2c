"""`WeightMap`: the weights of a detector as a value with algebra; the only place that loops over a state dict."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load as safetensors_load

from diredi.errors import CorruptData, InvalidInput
from diredi.store.files import atomic_write, make_folder

Array = NDArray[Any]


class WeightMap(Mapping[str, Array]):
    """Named arrays, immutable: raw training weights (float32) and integer counters (int64).

    Arithmetic works on the float entries, key by key, and demands equal schemas; integer entries (batch-norm counters)
    are taken from the left operand.

    >>> import numpy as np
    >>> a = WeightMap({"w": np.ones(2, np.float32)})
    >>> float((a + a * 0.5).norm())
    2.1213203435596424
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = {name: np.asarray(arrays[name]) for name in sorted(arrays)}

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __add__(self, other: WeightMap) -> WeightMap:
        return self._combined(other, lambda a, b: a + b)

    def __sub__(self, other: WeightMap) -> WeightMap:
        return self._combined(other, lambda a, b: a - b)

    def __mul__(self, factor: float) -> WeightMap:
        return self.mapped(lambda _, a: a * a.dtype.type(factor))

    def _combined(self, other: WeightMap, function: Callable[[Array, Array], Array]) -> WeightMap:
        self.check_same_schema(other)
        return self.mapped(lambda name, array: function(array, other[name]))

    def mapped(self, change: Callable[[str, Array], Array]) -> WeightMap:
        """Return a new map with `change(name, array)` in place of each float array."""
        return WeightMap({n: change(n, a) if _is_float(a) else a for n, a in self._arrays.items()})

    def selected(self, keep: Callable[[str], bool]) -> WeightMap:
        """Return a map of the entries whose name `keep` accepts."""
        return WeightMap({n: a for n, a in self._arrays.items() if keep(n)})

    def norm(self) -> float:
        """Return the Euclidean norm over all float entries."""
        return math.sqrt(
            sum(float(np.square(a, dtype=np.float64).sum()) for a in self._arrays.values() if _is_float(a))
        )

    def check_bounded(self, limit: float) -> None:
        """Check that no value is larger than a limit, in either direction, and that each is a number.

        Args:
            limit: The largest value that may be.

        Raises:
            InvalidInput: A value is larger, NaN or infinite; the message names the first such array.
        """
        self.check_finite()
        for name, array in self._arrays.items():
            if _is_float(array) and (largest := float(np.abs(array).max(initial=0))) > limit:
                raise InvalidInput(f"{name!r} holds {largest:.3g}, more than the {limit:.3g} that such weights can be")

    def largest(self) -> float:
        """Return the largest absolute value of all float entries."""
        return max((float(np.abs(a).max(initial=0)) for a in self._arrays.values() if _is_float(a)), default=0.0)

    @property
    def fp32_bytes(self) -> int:
        """Return the size of the float entries as float32, in bytes."""
        return sum(a.size * 4 for a in self._arrays.values() if _is_float(a))

    def schema(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return dtype and shape of each entry by name."""
        return {n: (str(a.dtype), a.shape) for n, a in self._arrays.items()}

    def schema_digest(self) -> str:
        """Return a digest of names, dtypes and shapes, which is equal for two maps that may be added."""
        return "sha256:" + hashlib.sha256(json.dumps(self.schema(), sort_keys=True).encode()).hexdigest()

    def check_same_schema(self, other: WeightMap) -> None:
        """Check that another map has the same names, dtypes and shapes.

        Raises:
            InvalidInput: It has not; the message names the first entry that differs.
        """
        if self._arrays.keys() == other.keys() and all(_alike(a, other[n]) for n, a in self._arrays.items()):
            return
        mine, theirs = self.schema(), other.schema()
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                raise InvalidInput(
                    f"weights do not fit together at {name!r}: {_said(mine.get(name))} here, "
                    f"{_said(theirs.get(name))} there; both must come from the same architecture and label space"
                )

    def check_finite(self) -> None:
        """Check that every value is a number.

        Raises:
            InvalidInput: A value is NaN or infinite; the message names the first such array.
        """
        for name, array in self._arrays.items():
            if _is_float(array) and not np.isfinite(array).all():
                raise InvalidInput(f"{name!r} holds a NaN or infinite value: these weights are not usable")

    def to_bytes(self, metadata: Mapping[str, str] | None = None) -> bytes:
        """Return the safetensors file of this map; equal maps with equal metadata give equal bytes.

        Args:
            metadata: Texts to store beside the arrays.
        """
        arrays = {n: np.asarray(a, order="C") for n, a in self._arrays.items()}
        # The library's own layout (wide types first, then by name), but every array is copied once and not five times.
        header: dict[str, Any] = {"__metadata__": dict(metadata or {})}
        order, end = sorted(arrays, key=lambda name: (-_RANKS.index(arrays[name].dtype.name), name)), 0
        for name in order:
            array, start = arrays[name], end
            end += array.nbytes
            kind = _NAMES[array.dtype.name]
            header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
        packed = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        packed += b" " * (-len(packed) % 8)
        parts = (arrays[name].reshape(-1).data.cast("B") for name in order)
        return b"".join((len(packed).to_bytes(8, "little"), packed, *parts))

    def digest(self, metadata: Mapping[str, str] | None = None) -> str:
        """Return the digest "sha256:..." of the safetensors file that `save` would write.

        Args:
            metadata: Strings for the header of the file.
        """
        return "sha256:" + hashlib.sha256(self.to_bytes(metadata)).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes) -> WeightMap:
        """Read a map from the bytes of a safetensors file.

        Raises:
            CorruptData: The bytes are no complete safetensors file.
        """
        try:
            return cls(safetensors_load(data))
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
            raise CorruptData(f"not a safetensors file ({error}): download it again") from None

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> str:
        """Write the safetensors file, complete or not at all.

        Args:
            path: The file to write.
            metadata: Texts to store beside the arrays.

        Returns:
            The digest of the file.
        """
        data = self.to_bytes(metadata)
        make_folder(path.parent)
        atomic_write(path, data)
        return "sha256:" + hashlib.sha256(data).hexdigest()

    @classmethod
    def load(cls, path: Path) -> WeightMap:
        """Read a map from a safetensors file.

        Raises:
            CorruptData: The file is damaged or of another format.
        """
        return cls.from_bytes(path.read_bytes())


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file without reading its arrays.

    Raises:
        CorruptData: The file is damaged or of another format.
    """
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            return dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise CorruptData(f"{path} is not a safetensors file ({error})") from None


_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "F16": "float16", "I32": "int32",
    "U32": "uint32", "F32": "float32", "F64": "float64", "I64": "int64", "U64": "uint64",
}  # fmt: skip
"""As the library sorts them, narrow ones first."""
_NAMES = {numpy: ours for ours, numpy in _DTYPES.items()}
_RANKS = list(_DTYPES.values())


def read_schema(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of each array of a safetensors file without reading the arrays.

    Raises:
        CorruptData: The file is damaged or of another format.
    """
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in sorted(file.keys())}
            return {n: (_DTYPES[s.get_dtype()], tuple(s.get_shape())) for n, s in slices.items()}
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        raise CorruptData(f"{path} is not a safetensors file of weights ({error})") from None


def _alike(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape


def _is_float(array: Array) -> bool:
    return np.issubdtype(array.dtype, np.floating)


def _said(entry: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if entry is None else f"{entry[0]} {list(entry[1])}"
