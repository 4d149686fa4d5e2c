"""The tree of the log against the definition in RFC 6962, and a place in it against every other."""

from __future__ import annotations

import hashlib
import json

from diredi.trust.merkle import Frontier, leaf_hash, node_hash, root_after
from diredi.trust.release_repository import LogProof


def tree_hash(entries: list[bytes]) -> bytes:
    """MTH as the RFC has it."""
    if len(entries) < 2:
        return leaf_hash(entries[0]) if entries else hashlib.sha256(b"").digest()
    left = 1 << (len(entries) - 1).bit_length() - 1
    return node_hash(tree_hash(entries[:left]), tree_hash(entries[left:]))


def test_roots_and_proofs_are_those_of_the_definition_for_every_size() -> None:
    entries: list[bytes] = []
    tree = Frontier()
    for number in range(130):
        entry = b"entry %d" % number
        assert root_after(entry, tree.peaks) == tree_hash([*entries, entry])
        entries.append(entry)
        tree = tree.add(entry)
        assert (tree.size, tree.root) == (len(entries), tree_hash(entries))


def test_a_place_in_the_log_proves_one_release_and_nothing_that_is_like_it() -> None:
    tree = Frontier()
    for number in range(11):
        tree = tree.add(b"%d" % number)
    entry = json.dumps({"version": 3, "scope": "fleet", "file": "sha256:ab"})
    peaks = tuple(peak.hex() for peak in tree.peaks)
    proof = LogProof(index=11, entry=entry, peaks=peaks, root=tree.add(entry.encode()).root.hex())
    assert proof.holds_for(3, "fleet", "sha256:ab")
    assert not proof.holds_for(4, "fleet", "sha256:ab")
    assert not proof.holds_for(3, "site:site-1", "sha256:ab")
    assert not proof.holds_for(3, "fleet", "sha256:cd")
    for change in (
        {"index": 12}, {"peaks": peaks[1:]}, {"peaks": (*peaks[:2], "00" * 32)}, {"peaks": ("zz",) * 3},
        {"root": "00" * 32}, {"entry": entry + " "}, {"entry": "[" * 100_000}, {"entry": "[]"},
    ):  # fmt: skip
        assert not proof.model_copy(update=change).holds_for(3, "fleet", "sha256:ab")
