"""The knowledge gap: what tutor 2 knows and tutor 1 does not, as a value with algebra. All that ever leaves a site.

    gap   = compute(tutor_2, tutor_1, base)
    tutor = apply(base, gap, lam=0.7)

Rows of classes that the base does not have are carried whole and set whole, whatever lambda is (`policy`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from diredi.codecs import MAX_DECODED_BYTES, codec_named, read_header
from diredi.errors import CorruptData, InvalidInput
from diredi.knowledge.weight_kinds import KeyKind, difference, kind_of, moved
from diredi.labels import ClassName, LabelSpace
from diredi.store.weights import Array, WeightMap

_KEY = "diredi.gap"
Schema = Mapping[str, tuple[str, tuple[int, ...]]]


class GapNote(BaseModel):
    """What a gap's file says of itself, beside its numbers."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    base_id: str
    """Digest of the safetensors file that the gap is to be added to."""
    labels: LabelSpace
    """Of the gap; extends the base's."""
    base_classes: int
    """How many of `labels` the base has."""
    taught: tuple[ClassName, ...] | None = None
    """The new classes of which the site had labels; the rows of others were never shown one. None: all of them."""

    @property
    def taught_classes(self) -> tuple[str, ...]:
        return self.labels.names[self.base_classes :] if self.taught is None else self.taught


@dataclass(frozen=True)
class Gap:
    """Differences of known weights and whole rows of new classes. A key that is missing means: no change."""

    weights: WeightMap
    note: GapNote

    def to_bytes(self, codec: str) -> bytes:
        return codec_named(codec).encode(self.weights, {_KEY: self.note.model_dump_json()})

    @classmethod
    def from_bytes(cls, data: bytes, codec: str | None = None, max_bytes: int = MAX_DECODED_BYTES) -> Self:
        """`codec` None: whichever the file names. Raises CorruptData, and InvalidInput for an unknown codec."""
        header = read_header(data)
        weights = codec_named(codec or header.codec).decode(data, max_bytes)
        try:
            return cls(weights, GapNote.model_validate(json.loads(header.metadata[_KEY])))
        except (KeyError, ValueError, ValidationError):
            raise CorruptData("these are encoded weights but not a gap: submit what `extract` wrote") from None

    def check_fits(self, base: Schema) -> None:
        """Raises InvalidInput that names the first key that is not the base's, has another shape or is not a number."""
        new = len(self.note.labels) - self.note.base_classes
        if new < 0:
            raise InvalidInput("the gap has fewer classes than its base: class ids never go away")
        for name, (dtype, shape) in self.weights.schema().items():
            if name not in base or kind_of(name, dtype) is KeyKind.COUNTER:
                raise InvalidInput(f"the gap has {name!r}, which is no weight of its base: compute it from raw weights")
            if (dtype, shape) not in (base[name], _grown(base[name], new)):
                raise InvalidInput(f"the gap has {dtype} {list(shape)} for {name!r}, its base {list(base[name][1])}")
        if new and all(shape == base[name][1] for name, (_, shape) in self.weights.schema().items()):
            raise InvalidInput(f"the gap names {new} new classes but has no rows for them: extract it again")
        self.weights.check_finite()


def compute(after: WeightMap, before: WeightMap, base: WeightMap, statistics: bool = True) -> WeightMap:
    """`after - before`, key by key as `policy` says, for the keys of `base`.

    `after` may have rows of new classes, `before` may have them or not; `base` has none of them. `statistics` False
    leaves batch-norm statistics out. Raises InvalidInput where the three do not fit together.
    """
    strange = sorted((after.keys() | before.keys()) - base.keys())
    if strange:
        raise InvalidInput(f"{strange[0]!r} is no weight of the base: helper layers and fused models have no gap")
    gap: dict[str, Array] = {}
    for name, known in base.items():
        kind = kind_of(name, str(known.dtype))
        if kind is KeyKind.COUNTER or (kind.is_statistic and not statistics):
            continue
        old_after, new_after = _split(name, after, known)
        old_before, _ = _split(name, before, known)
        gap[name] = _joined(difference(kind, old_after, old_before), new_after)
    result = WeightMap(gap)
    result.check_finite()
    return result


def apply(base: WeightMap, gap: WeightMap, lam: float | Mapping[str, float] = 1.0) -> WeightMap:
    """`base` with `lam` of what the gap says of known weights, and all of what it says of new classes.

    `lam` is one for all weights, or one for each by name. Raises InvalidInput when a key or shape is not the base's, or
    the sum is not finite.
    """
    strange = sorted(gap.keys() - base.keys())
    if strange:
        raise InvalidInput(f"the gap has {strange[0]!r}, which is no weight of its base: it is a gap for another one")
    sums = dict(base)
    for name in gap:
        known = base[name]
        change, new = _split(name, gap, known)
        share = lam[name] if isinstance(lam, Mapping) else lam
        sums[name] = _joined(moved(kind_of(name, str(known.dtype)), known, change, share), new)
    result = WeightMap(sums)
    result.check_finite()
    return result


def selected(gap: WeightMap, base: WeightMap, keep: Mapping[str, bool]) -> WeightMap:
    """The gap of only those weights for which `keep` is true. New classes stay: without their rows nothing fits."""
    return WeightMap(
        {
            name: array if keep[name] else _joined(np.zeros_like(base[name]), _split(name, gap, base[name])[1])
            for name, array in gap.items()
            if keep[name] or array.shape != base[name].shape
        }
    )


def _split(name: str, weights: WeightMap, known: Array) -> tuple[Array, Array]:
    """Rows that `known` has too, and the rows of new classes."""
    array = weights.get(name)
    rows = known.shape[0] if known.ndim else 0
    fits = array is not None and array.dtype == known.dtype and array.ndim == known.ndim
    if array is None or not fits or array.shape[1:] != known.shape[1:] or (known.ndim and array.shape[0] < rows):
        there = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
        here = f"{known.dtype} {list(known.shape)}"
        raise InvalidInput(f"weights do not fit together at {name!r}: {here} in the base, {there} in the other")
    return (array[:rows], array[rows:]) if known.ndim else (array, array[None][:0])


def _joined(old: Array, new: Array) -> Array:
    return np.concatenate([old, new]) if new.size else old


def _grown(entry: tuple[str, tuple[int, ...]], rows: int) -> tuple[str, tuple[int, ...]]:
    dtype, shape = entry
    return (dtype, (shape[0] + rows, *shape[1:])) if shape else entry
