"""What all methods share: one label space for all gaps, and the rows of new classes.

A row of a class that the base does not have is a whole value (`diredi.knowledge.weight_kinds`), so there is nothing to
merge but the rows of sites that were taught the class: their mean, weighted by images, or their median where the method
is one against liars. A site whose label space knows the class only by name has a row for it too, but one that learned
that the class is nowhere; it has no say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from diredi.errors import InvalidInput
from diredi.knowledge.gap import GapNote
from diredi.knowledge.merging.base import Contribution
from diredi.labels import LabelSpace
from diredi.store.weights import Array, WeightMap


def common_note(contributions: Sequence[Contribution], base: WeightMap) -> GapNote:
    """The note of the merged gap. Raises InvalidInput that names the site whose gap does not go with the others."""
    if not contributions:
        raise InvalidInput("there is no gap to merge: a cycle needs the gap of at least one site")
    first, schema = contributions[0], base.schema()
    sites: set[str] = set()
    for one in contributions:
        if one.site in sites:
            raise InvalidInput(f"site {one.site!r} has two gaps in one merge: keep the newer one")
        if one.images < 1:
            raise InvalidInput(f"site {one.site!r} gives no number of training images: its gap has no weight")
        if (one.gap.note.base_id, one.gap.note.base_classes) != (first.gap.note.base_id, first.gap.note.base_classes):
            raise InvalidInput(f"sites {first.site!r} and {one.site!r} have gaps for different bases: merge one base's")
        one.gap.check_fits(schema)
        sites.add(one.site)
    labels = _union([one.gap.note.labels for one in contributions])
    known = first.gap.note.base_classes
    taught = {name for one in contributions for name in one.gap.note.taught_classes}
    ordered = tuple(name for name in labels.names[known:] if name in taught)
    return first.gap.note.model_copy(update={"labels": labels, "taught": ordered})


def _union(spaces: Sequence[LabelSpace]) -> LabelSpace:
    """The longest one, which in a cloud that gives out ids holds all others; else their new names, appended."""
    longest = max(spaces, key=lambda labels: (len(labels), labels.names))
    return longest.expand(name for labels in spaces for name in labels.names)


def aligned(contributions: Sequence[Contribution], base: WeightMap) -> list[WeightMap]:
    """The change of known weights alone, with equal keys: a key that a gap does not have is no change."""
    names = sorted({name for one in contributions for name in one.gap.weights})
    return [WeightMap({name: _known(one.gap.weights, base, name) for name in names}) for one in contributions]


def _known(gap: WeightMap, base: WeightMap, name: str) -> Array:
    known = base[name]
    if name not in gap:
        return np.zeros_like(known)
    return gap[name][: known.shape[0]] if known.ndim else gap[name]


def new_rows(
    contributions: Sequence[Contribution], base: WeightMap, note: GapNote, against_liars: bool
) -> dict[str, Array]:
    """For each weight that has rows of classes, those of the union's new classes in the order of their ids."""
    growing = {
        name
        for one in contributions
        for name, array in one.gap.weights.items()
        if array.ndim and array.shape[0] > base[name].shape[0]
    }
    new = note.labels.names[note.base_classes :]
    found = {}
    for name in sorted(growing):
        rows = [_rows(contributions, base, name, label) for label in new]
        middles = [np.median(a, 0) if against_liars else np.average(a, 0, images) for a, images in rows]
        found[name] = np.stack(middles).astype(base[name].dtype)
    return found


def _rows(contributions: Sequence[Contribution], base: WeightMap, name: str, label: str) -> tuple[Array, list[int]]:
    """One row from each site that may speak for the class, and the images of each."""
    having = [one for one in contributions if label in one.gap.note.labels.names]
    taught = [one for one in having if label in one.gap.note.taught_classes] or having
    rows = []
    for one in taught:
        note = one.gap.note
        row = base[name].shape[0] + note.labels.id_of(label) - note.base_classes
        if name not in one.gap.weights or row >= one.gap.weights[name].shape[0]:
            raise InvalidInput(f"the gap of site {one.site!r} has no row of {label!r} in {name!r}: extract it again")
        rows.append(one.gap.weights[name][row])
    return np.stack(rows), [one.images for one in taught]


def joined(known: WeightMap, rows: Mapping[str, Array]) -> WeightMap:
    """The merged gap: the change of known weights, and under it the rows of new classes."""
    return WeightMap(
        {name: np.concatenate([array, rows[name]]) if name in rows else array for name, array in known.items()}
    )
