"""What the cloud checks of a gap before it keeps a word of its manifest. Needs no torch, so a server may do it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diredi.codecs import codec_named
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput, WrongState
from diredi.knowledge.gap import Gap
from diredi.labels import LabelSpace
from diredi.store.weights import read_schema


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

    Takes memory of a few times the gap. Raises InvalidInput: an unknown codec, a schema that is not the base's, another
    label space, a NaN. CorruptData: bytes that do not decode. WrongState: a gap for another base.
    """
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
    if gap.note.branches[:had] != spec.branches or len(gap.note.branches) > had + 1:
        raise InvalidInput(
            "the gap changes who speaks for which class in its base: a site may add one branch, at the end"
        )
    gap.check_fits(schema)
    return CheckedGap(len(data), fp32_bytes, gap.weights.schema_digest(), gap.weights.norm())


def _float_bytes(schema: dict[str, tuple[str, tuple[int, ...]]]) -> int:
    total = 0
    for dtype, shape in schema.values():
        size = 4 if dtype.startswith("float") else 0
        for side in shape:
            size *= side
        total += size
    return total
