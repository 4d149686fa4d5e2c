"""An append-only log as a Merkle tree: whoever knows its root knows whether an entry was in it, and unchanged.

Hashes are those of Certificate Transparency, https://www.rfc-editor.org/rfc/rfc6962#section-2.1. The roots of the
complete trees to the left of a new entry (`Frontier.peaks`) are all that is needed to add it. They also prove that it
is in the tree that it completes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two neighbouring trees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Frontier:
    """A tree of so many entries, as far as one needs it to add another.

    Attributes:
        size: Number of entries.
        peaks: Roots of the complete trees that it consists of, the largest first.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def add(self, entry: bytes) -> Frontier:
        """Return the tree with one more entry."""
        peaks, new, size = list(self.peaks), leaf_hash(entry), self.size
        while size & 1:
            new = node_hash(peaks.pop(), new)
            size >>= 1
        return Frontier(self.size + 1, (*peaks, new))

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        if not self.peaks:
            return EMPTY_ROOT
        return reduce(lambda right, left: node_hash(left, right), reversed(self.peaks[:-1]), self.peaks[-1])


def root_after(entry: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the root of the tree that an entry completes.

    Args:
        entry: The last entry of the tree.
        proof: The peaks of the tree before it, the largest first.
    """
    return reduce(lambda right, left: node_hash(left, right), reversed(proof), leaf_hash(entry))
