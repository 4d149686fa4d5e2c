"""What one model has learned since another, as a gap for a third model that has learned something else meanwhile.

    origin     classes a, b
    learned    classes a, b, crane      came from origin
    target     classes a, b, truck      came from origin, too

`transport` makes `learned - origin` into a gap for `target`, which then has the classes a, b, truck, crane. A class is
the same by its name, never by its id. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from diredi.detectors.families import ROUTER
from diredi.detectors.spec import DetectorSpec, for_each, shortest
from diredi.errors import InvalidInput
from diredi.knowledge.gap import Gap, GapNote
from diredi.knowledge.weight_kinds import KeyKind, difference, kind_of
from diredi.labels import LabelSpace
from diredi.store.blobs import digest_of_file
from diredi.store.weights import Array, WeightMap


@dataclass(frozen=True)
class StoredModel:
    """A detector as its file has it."""

    id: str
    """Digest of the file."""
    spec: DetectorSpec
    weights: WeightMap

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a detector's file. Raises CorruptData where it is none of DiReDi's."""
        return cls(digest_of_file(path).digest, DetectorSpec.of_file(path), WeightMap.load(path))


def transport(learned: StoredModel, origin: StoredModel, target: StoredModel) -> Gap:
    """Return what a model has learned as a gap for another model that came from the same origin.

    Weights that the origin has are differences: `learned - origin`, with the rows of the head sorted by the target's
    classes. A class that both have learned since is left as the target knows it. Classes that only the learned model
    has come behind the target's, with their rows whole, and so do its new branches, behind the target's own.

    Args:
        learned: What the origin has become.
        origin: The model that both came from.
        target: What is to receive the gap.

    Returns:
        The gap; `apply_gap` adds it to the target.

    Raises:
        InvalidInput: The three are not of one architecture, or spell a class in two ways.
    """
    labels = target.spec.labels.expand(learned.spec.labels.names, distinct=learned.spec.labels.decided)
    old_branches, target_branches = len(origin.spec.branches), len(target.spec.branches)
    for other in (learned, target):
        if other.spec.architecture != origin.spec.architecture or len(other.spec.branches) < old_branches:
            raise InvalidInput(
                f"a {other.spec.architecture} with {len(other.spec.branches)} branches did not come from a "
                f"{origin.spec.architecture} with {old_branches}: what it has learned cannot be transported"
            )
    rows = _class_rows(learned, origin, target)
    weights: dict[str, Array] = {}
    for name, known in target.weights.items():
        if kind_of(name, str(known.dtype)) is KeyKind.COUNTER:
            continue
        if name in origin.weights:
            after, before = learned.weights[name], origin.weights[name]
            weights[name] = _change(name, after, before, rows, learned.spec.labels, origin.spec.labels, target, labels)
        elif _inner(name) in rows and len(labels) > len(target.spec.labels):
            # A branch of the target's own gets rows for the new classes as any head does; it does not speak for them.
            silent = np.repeat(known.mean(0, keepdims=True), len(labels) - len(target.spec.labels), 0)
            weights[name] = np.concatenate([np.zeros_like(known), silent.astype(known.dtype)])
    for number in range(old_branches, len(learned.spec.branches)):
        prefix, moved_to = f"branches.{number}.", f"branches.{target_branches + number - old_branches}."
        for name, after in learned.weights.items():
            inner = name.removeprefix(prefix)
            if inner == name or kind_of(name, str(after.dtype)) is KeyKind.COUNTER:
                continue
            # A branch is a change of the neck and head that the base has, its router one of nothing.
            before = np.zeros_like(after) if inner.startswith(f"{ROUTER}.") else origin.weights[inner]
            weights[moved_to + inner] = _change(
                inner, after, before, rows, learned.spec.labels, origin.spec.labels, target, labels
            )
    new_branches, new_routed = (
        [tuple(sorted(labels.id_of(learned.spec.labels.names[kind]) for kind in ids)) for ids in some[old_branches:]]
        for some in (learned.spec.branches, for_each(learned.spec.routed, learned.spec.branches))
    )
    note = GapNote(
        base_id=target.id, labels=labels, base_classes=len(target.spec.labels),
        branches=(*target.spec.branches, *new_branches), 
        routed=shortest((*for_each(target.spec.routed, target.spec.branches), *new_routed)),
    )  # fmt: skip
    gap = Gap(WeightMap(weights), note)
    gap.check_fits(target.weights.schema())
    return gap


def _change(
    name: str,
    after: Array,
    before: Array,
    rows: frozenset[str],
    learned: LabelSpace,
    origin: LabelSpace,
    target: StoredModel,
    labels: LabelSpace,
) -> Array:
    """Return what the gap has for one weight: a difference, and whole rows where there is one for each class."""
    kind = kind_of(name, str(after.dtype))
    if name not in rows:
        return difference(kind, after, before)
    found = np.zeros((len(labels), *after.shape[1:]), after.dtype)
    for class_id, label in enumerate(labels.names):
        if label in origin.names:
            found[class_id] = difference(kind, after[learned.id_of(label)], before[origin.id_of(label)])
        elif class_id >= len(target.spec.labels):
            found[class_id] = after[learned.id_of(label)]
    return found


def _class_rows(learned: StoredModel, origin: StoredModel, target: StoredModel) -> frozenset[str]:
    """Return the names of the weights of the main parts that have a row for each class: those that have grown."""
    models = (learned, origin, target)
    rows = set()
    for name, array in origin.weights.items():
        if any(name not in model.weights or model.weights[name].shape[1:] != array.shape[1:] for model in models):
            raise InvalidInput(f"the models are not of one kind, they differ at {name!r}: nothing can be transported")
        heights = [model.weights[name].shape[:1] for model in models]
        if len(set(heights)) == 1:
            continue
        if heights != [(len(model.spec.labels),) for model in models]:
            raise InvalidInput(f"{name!r} has not a row for each class: nothing can be transported")
        rows.add(name)
    return frozenset(rows)


def _inner(name: str) -> str:
    """Return what the weight of a branch is called in the main part."""
    return name.split(".", 2)[2] if name.startswith("branches.") else name
