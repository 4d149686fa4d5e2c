"""What all methods share: one label space for all gaps, the rows of new classes, and new branches.

A row of a class that the base does not have is a whole value (`diredi.knowledge.weight_kinds`), so there is nothing to
merge but the rows of sites that were taught the class: their mean, weighted by images, or their median where the method
is one against liars. A site whose label space knows the class only by name has a row for it too, but one that learned
that the class is nowhere; it has no say.

New branches stand beside each other, one for each set of classes. Sites whose branches are for the same classes get one
between them, of which each weight is their mean or median. A branch with a router is of one place, so it stays by
itself; for a class that an earlier one has, too, it speaks in its own place only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from diredi.detectors.families import ROUTER
from diredi.detectors.spec import for_each, shortest
from diredi.errors import InvalidInput
from diredi.knowledge.gap import Gap, GapNote, new_branch_weights
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
    had = _old_branches(first.gap, base)
    branches, routed = list(had), list(for_each(first.gap.note.routed, first.gap.note.branches)[: len(had)])
    spoken_for: set[int] = set()
    for members in branch_groups(contributions, base):
        ids, of_router = (_ids_of_new_branch(members[0].gap.note, kind, labels) for kind in ("branches", "routed"))
        branches.append(ids)
        routed.append(tuple(one for one in ids if one in of_router or one in spoken_for) if of_router else ())
        spoken_for.update(ids)
    return first.gap.note.model_copy(
        update={
            "labels": labels,
            "taught": ordered,
            "branches": tuple(branches),
            "routed": shortest(tuple(routed)),
        }
    )


def _ids_of_new_branch(note: GapNote, kind: Literal["branches", "routed"], labels: LabelSpace) -> tuple[int, ...]:
    """What a note says of its last branch, in the ids of another label space."""
    ids: tuple[tuple[int, ...], ...] = getattr(note, kind)
    return tuple(sorted(labels.ids_of([note.labels.names[one] for one in ids[-1]]))) if ids else ()


def _union(spaces: Sequence[LabelSpace]) -> LabelSpace:
    """The longest one, which in a cloud that gives out ids holds all others; else their new names, appended."""
    longest = max(spaces, key=lambda labels: (len(labels), labels.names))
    decided = frozenset[str]().union(*(labels.decided for labels in spaces))
    return longest.expand((name for labels in spaces for name in labels.names), distinct=decided)


def aligned(contributions: Sequence[Contribution], base: WeightMap) -> list[WeightMap]:
    """The change of known weights alone, with equal keys: a key that a gap does not have is no change."""
    names = sorted({name for one in contributions for name in one.gap.weights if name in base})
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
        if name in base and array.ndim and array.shape[0] > base[name].shape[0]
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


def _old_branches(gap: Gap, base: WeightMap) -> tuple[tuple[int, ...], ...]:
    had = 1 + max((int(name.split(".")[1]) for name in base if name.startswith("branches.")), default=-1)
    return gap.note.branches[:had]


def branch_groups(contributions: Sequence[Contribution], base: WeightMap) -> list[list[Contribution]]:
    """The sites that bring a new branch: together where it is for the same classes everywhere, else alone and last."""
    shared: dict[frozenset[str], list[Contribution]] = {}
    alone: list[list[Contribution]] = []
    for one in contributions:
        note = one.gap.note
        for ids in note.branches[len(_old_branches(one.gap, base)) :]:  # one at most
            if note.routed and note.routed[-1]:
                alone.append([one])
            else:
                shared.setdefault(frozenset(note.labels.names[kind] for kind in ids), []).append(one)
    return [*shared.values(), *alone]


def new_branches(
    contributions: Sequence[Contribution],
    base: WeightMap,
    note: GapNote,
    rows: Mapping[str, Array],
    against_liars: bool,
) -> dict[str, Array]:
    """The weights of the new branches of all sites. `rows`: what `new_rows` gave for the main head."""
    found = {}
    first = len(note.branches) - len(branch_groups(contributions, base))
    for number, members in enumerate(branch_groups(contributions, base), start=first):
        # A site adds one branch, whose number follows those of the base.
        own = [new_branch_weights(one.gap.weights, base) for one in members]
        for inner in sorted(
            {inner for names in own for name, inner in names.items() if name in members[0].gap.weights}
        ):
            name = f"branches.{first}.{inner}"
            arrays = [_in_union(one, name, base[inner], note, inner in rows) for one in members]
            middle = np.median(arrays, 0) if against_liars else np.average(arrays, 0, [one.images for one in members])
            found[f"branches.{number}.{inner}"] = middle.astype(base[inner].dtype)
        if len(members) == 1:
            prefix = f"branches.{first}.{ROUTER}."
            found |= {
                f"branches.{number}.{ROUTER}.{name.removeprefix(prefix)}": array
                for name, array in members[0].gap.weights.items()
                if name.startswith(prefix)
            }
    return found


def _in_union(one: Contribution, name: str, known: Array, note: GapNote, grows: bool) -> Array:
    """A site's weight of its branch, with a row for each new class of the union; nobody reads those that it lacks."""
    if name not in one.gap.weights:
        raise InvalidInput(f"the gap of site {one.site!r} has no {name!r}, which others have: extract it again")
    array = one.gap.weights[name]
    if not grows:
        return array
    row_of = {label: row for row, label in enumerate(one.gap.note.labels.names[note.base_classes :], start=len(known))}
    empty = np.zeros_like(known[0])
    new = [array[row_of[label]] if label in row_of else empty for label in note.labels.names[note.base_classes :]]
    return np.concatenate([array[: len(known)], np.stack(new)])


def joined(known: WeightMap, rows: Mapping[str, Array]) -> WeightMap:
    """The merged gap: the change of known weights, and under it the rows of new classes."""
    return WeightMap(
        {name: np.concatenate([array, rows[name]]) if name in rows else array for name, array in known.items()}
    )
