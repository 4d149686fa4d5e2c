"""The knowledge gap: what tutor 2 knows and tutor 1 does not, as a value with algebra. All that ever leaves a site.

    gap   = compute(tutor_2, tutor_1, base)             W(tutor 2) - W(tutor 1)
    tutor = apply(base, gap, lam=0.7)                   W(tutor) + lambda * gap

Rows of classes that the base does not have are carried whole and set whole, whatever lambda is (`weight_kinds`). A
branch that the base does not have is a change of the neck and head that the base does have; it too is added whole, and
so is its router, which is a change of nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from diredi.codecs import MAX_DECODED_BYTES, codec_named, read_header
from diredi.detectors.families import BRANCHES, ROUTER
from diredi.detectors.spec import for_each, shortest
from diredi.errors import CorruptData, InvalidInput, NotFound
from diredi.knowledge.weight_kinds import KeyKind, difference, kind_of, moved
from diredi.labels import ClassName, LabelSpace
from diredi.store.blobs import digest_of
from diredi.store.files import atomic_write, make_folder
from diredi.store.weights import Array, WeightMap

_KEY = "diredi.gap"
Schema = Mapping[str, tuple[str, tuple[int, ...]]]


DEFAULT_CODEC = "int8-row-zstd"


class GapNote(BaseModel):
    """What a gap's file says of itself, beside its numbers: what it is to be added to, and which classes it has."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    """Version of the format."""
    base_id: str
    """Digest of the safetensors file that the gap is to be added to."""
    labels: LabelSpace
    """Of the gap; extends the base's."""
    base_classes: int
    """How many of `labels` the base has."""
    taught: tuple[ClassName, ...] | None = None
    """The new classes of which the site had labels; the rows of others were never shown one. None: all of them."""
    branches: tuple[tuple[int, ...], ...] = ()
    """`DetectorSpec.branches` of the base once it has the gap; those that it had before come first."""
    routed: tuple[tuple[int, ...], ...] = ()
    """`DetectorSpec.routed` of the base once it has the gap."""

    @property
    def taught_classes(self) -> tuple[str, ...]:
        """New classes that were taught, whether the note names them or not."""
        return self.labels.names[self.base_classes :] if self.taught is None else self.taught


@dataclass(frozen=True)
class Gap:
    """A knowledge gap: differences of known weights, and whole rows of new classes.

    `W(tutor 2) - W(tutor 1)` (or `- W(tutor)`), key by key as `diredi.knowledge.weight_kinds` says. A gap is a value:
    it is saved, merged with others and applied, and never changed.
    """

    weights: WeightMap
    """A key that is missing means: no change."""
    note: GapNote
    """What it belongs to."""
    _encoded: tuple[str, bytes] | None = field(default=None, init=False, repr=False, compare=False)
    """Codec and bytes that it was read from: int8 of int8 would lose a second time."""

    @property
    def codec(self) -> str:
        """Name of the codec that the gap was read from; of the default one where it was not read."""
        return DEFAULT_CODEC if self._encoded is None else self._encoded[0]

    def to_bytes(self, codec: str | None = None) -> bytes:
        """Encode the gap.

        Args:
            codec: A name in `diredi.codecs.CODECS`. None: the codec that the gap was read from, else "int8-row-zstd".

        Returns:
            The bytes of its file; those that it was read from where the codec is the same. Equal gaps give equal bytes.

        Raises:
            InvalidInput: The codec is not known, or a value is not finite.
        """
        if self._encoded is not None and codec in (None, self.codec):
            return self._encoded[1]
        note = self.note.model_dump_json(exclude={n for n in ("branches", "routed") if not getattr(self.note, n)})
        return codec_named(codec or self.codec).encode(self.weights, {_KEY: note})

    def leaves_known(self, base: WeightMap) -> bool:
        """Return whether the gap changes nothing that the base knows: all it brings is new rows and new branches.

        Args:
            base: Weights of the base.
        """
        known = ((array, base[name]) for name, array in self.weights.items() if name in base)
        return not any((array[: len(old)] if old.ndim else array).any() for array, old in known)

    @classmethod
    def from_bytes(cls, data: bytes, codec: str | None = None, max_bytes: int = MAX_DECODED_BYTES) -> Self:
        """Decode a gap.

        Args:
            data: What `to_bytes` gave.
            codec: The codec that they must be in; None takes the one that they name.
            max_bytes: What they may unpack to.

        Raises:
            CorruptData: They are damaged, no gap, in another codec, or too many.
            InvalidInput: The codec is not known here.
        """
        header = read_header(data)
        weights = codec_named(codec or header.codec).decode(data, max_bytes)
        try:
            gap = cls(weights, GapNote.model_validate(json.loads(header.metadata[_KEY])))
        except (KeyError, ValueError, ValidationError, RecursionError):
            raise CorruptData("these are encoded weights but not a gap: submit what `extract` wrote") from None
        object.__setattr__(gap, "_encoded", (header.codec, data))
        return gap

    def save(self, path: Path | str, codec: str | None = None) -> str:
        """Write the gap to a file, whole or not at all.

        Args:
            path: Where the file goes, best with the suffix ".gap".
            codec: As for `to_bytes`.

        Returns:
            The digest "sha256:..." of the file.
        """
        path, data = Path(path), self.to_bytes(codec)
        make_folder(path.parent)
        atomic_write(path, data)
        return digest_of(data)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a gap from a file, as `save` or a site's job wrote it.

        Args:
            path: The file.

        Raises:
            NotFound: There is no such file.
            CorruptData: It is damaged or no gap.
        """
        path = Path(path)
        if not path.is_file():
            raise NotFound(f"there is no gap {path}: check the path")
        return cls.from_bytes(path.read_bytes())

    def check_fits(self, base: Schema) -> None:
        """Check that the gap can be added to a base.

        Args:
            base: Name of each weight of the base, with its type and shape (`WeightMap.schema`).

        Raises:
            InvalidInput: A weight is not the base's, has another shape or is not finite; the message names it.
        """
        new = len(self.note.labels) - self.note.base_classes
        if new < 0:
            raise InvalidInput("the gap has fewer classes than its base: class ids never go away")
        base = dict(base) | {name: base[like] for name, like in new_branch_weights(self.weights, base).items()}
        base |= self._new_routers(base)
        if {_branch_of(name) for name in base} - {None} != set(range(len(self.note.branches))):
            raise InvalidInput("the gap's note names other branches than it has weights for: extract it again")
        for ids in self.note.branches:
            if not ids or list(ids) != sorted(set(ids) & set(range(len(self.note.labels)))):
                raise InvalidInput(f"a branch of the gap speaks for {ids}, which are no classes of the gap, each once")
        routed = for_each(self.note.routed, self.note.branches)
        if len(routed) != len(self.note.branches) or any(
            list(some) != sorted(set(some) & set(ids)) for some, ids in zip(routed, self.note.branches, strict=False)
        ):
            raise InvalidInput("the gap's note names routers that do not go with its branches: extract it again")
        routers = {number for name in base if (number := _router_of(name)) is not None}
        if routers != {number for number, ids in enumerate(routed) if ids}:
            raise InvalidInput("the gap's note names other routers than it has weights for: extract it again")
        for name, (dtype, shape) in self.weights.schema().items():
            if name not in base or kind_of(name, dtype) is KeyKind.COUNTER:
                raise InvalidInput(f"the gap has {name!r}, which is no weight of its base: compute it from raw weights")
            if (dtype, shape) not in (base[name], _grown(base[name], new)):
                raise InvalidInput(f"the gap has {dtype} {list(shape)} for {name!r}, its base {list(base[name][1])}")
        if new and all(shape == base[name][1] for name, (_, shape) in self.weights.schema().items()):
            raise InvalidInput(f"the gap names {new} new classes but has no rows for them: extract it again")
        self.weights.check_finite()

    def _new_routers(self, base: Schema) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Names, types and shapes of the weights of routers that the base lacks: a vector and a number each."""
        sizes = {"weight": 1, "bias": 0}
        return {
            name: entry
            for name, entry in self.weights.schema().items()
            if name not in base
            and _router_of(name) is not None
            and (entry[0], len(entry[1])) == ("float32", sizes.get(name.rpartition(".")[2]))
        }


def compute(after: WeightMap, before: WeightMap, base: WeightMap, statistics: bool = True) -> WeightMap:
    """`after - before`, key by key as `policy` says, for the keys of `base`.

    `after` may have rows of new classes and new branches, `before` may have them or not; `base` has none of them.
    `statistics` False leaves batch-norm statistics out. Raises InvalidInput where the three do not fit together.
    """
    base, before = with_branches(base, after), with_branches(before, after)
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

    New branches come whole too. `lam` is one for all weights, or one for each weight of the base by name. Raises
    InvalidInput when a key or shape is not the base's, or the sum is not finite.
    """
    known_names = base.keys()
    base = with_branches(base, gap)
    strange = sorted(gap.keys() - base.keys())
    if strange:
        raise InvalidInput(f"the gap has {strange[0]!r}, which is no weight of its base: it is a gap for another one")
    sums = dict(base)
    for name in gap:
        known = base[name]
        change, new = _split(name, gap, known)
        share = 1.0 if name not in known_names else lam[name] if isinstance(lam, Mapping) else lam
        sums[name] = _joined(moved(kind_of(name, str(known.dtype)), known, change, share), new)
    result = WeightMap(sums)
    result.check_finite()
    return result


def selected(gap: WeightMap, base: WeightMap, keep: Mapping[str, bool]) -> WeightMap:
    """The gap of only those weights for which `keep` is true. New classes and branches stay: they come whole or not."""
    return WeightMap(
        {
            name: array
            if keep.get(name, True)
            else _joined(np.zeros_like(base[name]), _split(name, gap, base[name])[1])
            for name, array in gap.items()
            if keep.get(name, True) or array.shape != base[name].shape
        }
    )


def new_branch_weights(names: Iterable[str], base: Iterable[str]) -> dict[str, str]:
    """Return which weight of the base each weight of a branch that the base lacks begins as. A router begins as none.

    Args:
        names: Names of weights, those of new branches among them. Counters of batch norm need not be.
        base: Names of the base's weights.
    """
    known = set(base)
    found: dict[str, str] = {}
    for name in names:
        match = None if name in known else _BRANCH_WEIGHT.fullmatch(name)
        if match is not None and match["inner"] in known:
            found[name] = match["inner"]
            counter = match["inner"].replace("running_mean", "num_batches_tracked")
            if counter in known:
                found[f"branches.{match['number']}.{counter}"] = counter
    return found


def with_branches(base: WeightMap, weights: WeightMap) -> WeightMap:
    """The base with the branches that `weights` has and it lacks, each a copy of its own neck and head.

    A router is zeros.
    """
    new = new_branch_weights(weights, base)
    routers = {
        name: np.zeros_like(array)
        for name, array in weights.items()
        if name not in base and _router_of(name) is not None
    }
    return WeightMap({**base, **{name: base[like] for name, like in new.items()}, **routers}) if new else base


def without_branches(gap: Gap, numbers: Set[int]) -> Gap:
    """The gap without some of its new branches; those behind them move up."""
    if not numbers:
        return gap
    kept = [number for number in range(len(gap.note.branches)) if number not in numbers]
    weights = {}
    for name, array in gap.weights.items():
        match = _BRANCH_WEIGHT.fullmatch(name)
        if match is None:
            weights[name] = array
        elif int(match["number"]) in kept:
            weights[f"branches.{kept.index(int(match['number']))}.{match['inner']}"] = array
    branches = tuple(gap.note.branches[number] for number in kept)
    routed = tuple(gap.note.routed[number] for number in kept) if gap.note.routed else ()
    note = gap.note.model_copy(update={"branches": branches, "routed": shortest(routed)})
    return Gap(WeightMap(weights), note)


def without_routers(gap: Gap, numbers: Set[int]) -> Gap:
    """The gap without the routers of some branches, which have no class left for them to decide on."""
    kept = {name: array for name, array in gap.weights.items() if _router_of(name) not in numbers}
    routed = shortest(gap.note.routed)
    return Gap(WeightMap(kept), gap.note.model_copy(update={"routed": routed}))


_BRANCH_WEIGHT = re.compile(rf"{BRANCHES}\.(?P<number>\d+)\.(?P<inner>.+)")


def _branch_of(name: str) -> int | None:
    match = _BRANCH_WEIGHT.fullmatch(name)
    return None if match is None else int(match["number"])


def _router_of(name: str) -> int | None:
    match = _BRANCH_WEIGHT.fullmatch(name)
    return int(match["number"]) if match is not None and match["inner"].startswith(f"{ROUTER}.") else None


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
