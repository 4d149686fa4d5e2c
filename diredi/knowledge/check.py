"""What the cloud checks of a gap before it keeps a word of its manifest. Needs no torch, so a server may do it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from diredi.codecs import codec_named
from diredi.decoding import decoding
from diredi.detectors.families import BRANCHES, ROUTER, family_of
from diredi.detectors.spec import DetectorSpec, for_each
from diredi.errors import CorruptData, InvalidInput, WrongState
from diredi.knowledge.gap import Gap, Schema, new_branch_weights
from diredi.knowledge.weight_kinds import KeyKind, kind_of
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap, read_schema

LARGEST_CHANGE: Final = 10_000.0
"""How many times the largest weight of its base, or 1, a value of a gap may be. No training makes a larger one, and a
sum of such values may be no number."""


@dataclass(frozen=True)
class CheckedGap:
    """A gap that may be applied, in figures."""

    bytes: int
    fp32_bytes: int
    """What the base weighs as fp32: what would have travelled without a codec."""
    schema_digest: str
    norm: float


def check_gap_file(path: Path, codec: str, base: Path, base_id: str, labels: LabelSpace) -> CheckedGap:
    """Decodes the gap at `path` and holds it against the base's file and the labels that the cloud gave out.

    What passes can be applied. Takes memory of a few times the gap. Raises InvalidInput: an unknown codec, a schema
    that is not the base's, a branch that is not whole, another label space, a NaN. CorruptData: bytes that do not
    decode. WrongState: a gap for another base.
    """
    with decoding("the gap", CorruptData):
        return _check(path, codec, base, base_id, labels)


def _check(path: Path, codec: str, base: Path, base_id: str, labels: LabelSpace) -> CheckedGap:
    codec_named(codec)
    schema = read_schema(base)
    spec = DetectorSpec.of_file(base)
    known = spec.labels
    fp32_bytes = _float_bytes(schema)
    data = path.read_bytes()
    gap = Gap.from_bytes(data, codec, max_bytes=2 * fp32_bytes + 2**20)
    if gap.note.base_id != base_id:
        raise WrongState(f"the gap is for base {gap.note.base_id}, not for {base_id}: extract it again from this tutor")
    if gap.note.labels.names != labels.names or not labels.extends(known) or gap.note.base_classes != len(known):
        raise InvalidInput(
            f"the gap is for classes {', '.join(gap.note.labels.names)}, the cycle's are {', '.join(labels.names)}: "
            "propose the classes first and extract with the labels that come back"
        )
    had = len(spec.branches)
    routed = for_each(gap.note.routed, gap.note.branches)[:had]
    others = gap.note.branches[:had] != spec.branches or routed != for_each(spec.routed, spec.branches)
    if others or len(gap.note.branches) > had + 1:
        raise InvalidInput(
            "the gap changes who speaks for which class in its base: a site may add one branch, at the end"
        )
    gap.check_fits(schema)
    gap.weights.check_bounded(LARGEST_CHANGE * max(1.0, WeightMap.load(base).largest()))
    _check_new_branch(gap, schema, spec)
    _check_class_rows(gap, schema, spec)
    return CheckedGap(len(data), fp32_bytes, gap.weights.schema_digest(), gap.weights.norm())


def _check_new_branch(gap: Gap, base: Schema, spec: DetectorSpec) -> None:
    """Refuse a new branch that has not exactly the weights of the base's neck and head."""
    if len(gap.note.branches) == len(spec.branches):
        return
    family, prefix = family_of(spec.architecture), f"{BRANCHES}.{len(spec.branches)}."
    wanted = {
        prefix + name
        for name, (dtype, _) in base.items()
        if not name.startswith(f"{BRANCHES}.")
        and family.section_of(name) != "backbone"
        and kind_of(name, dtype) is not KeyKind.COUNTER
    }
    if gap.note.routed and gap.note.routed[-1]:
        router = f"{prefix}{ROUTER}.weight"
        wanted |= {router, f"{prefix}{ROUTER}.bias"}
        channels = base[family.last_map][1][0]
        if router in gap.weights and gap.weights[router].shape != (channels,):
            raise InvalidInput(f"the gap's router has {gap.weights[router].shape[0]} channels, its base {channels}")
    there = {name for name in gap.weights if name.startswith(prefix)}
    if there - wanted:
        raise InvalidInput(f"the gap's branch has {min(there - wanted)!r}, which is of the backbone: extract it again")
    if wanted - there:
        raise InvalidInput(f"the gap's branch has no {min(wanted - there)!r}: extract it again")


def _check_class_rows(gap: Gap, base: Schema, spec: DetectorSpec) -> None:
    """Refuse a gap in which other weights have grown than those that have a row for each class, or not all of these."""
    if len(gap.note.labels) == gap.note.base_classes:
        return
    family = family_of(spec.architecture)
    known = dict(base) | {name: base[like] for name, like in new_branch_weights(gap.weights, base).items()}
    grown = {name for name, array in gap.weights.items() if name in known and array.shape != known[name][1]}
    wanted = {name for name in known if family.has_class_rows(name)}
    if grown != wanted:
        name = min(grown ^ wanted)
        fault = "has rows of new classes in" if name in grown else "lacks rows of new classes in"
        raise InvalidInput(f"the gap {fault} {name!r}: extract it again")


def _float_bytes(schema: dict[str, tuple[str, tuple[int, ...]]]) -> int:
    total = 0
    for dtype, shape in schema.values():
        size = 4 if dtype.startswith("float") else 0
        for side in shape:
            size *= side
        total += size
    return total
