"""The inspection of a gap that a site has put: nothing of it is believed before it was measured here."""

from __future__ import annotations

from typing import Final

from cloud_server.entities import EncodedGap, GapManifest, Model
from diredi.errors import InvalidInput, NoRoom, NotFound, WrongState
from diredi.knowledge.check import check_gap_file
from diredi.labels import LabelSpace
from diredi.store.blobs import BlobStore

_HEADROOM_BYTES: Final = 2**20


class GapValidator:
    """Reads blobs, changes nothing."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def validate(self, manifest: GapManifest, tutor: Model, student: Model) -> None:
        """Raises WrongState (missing blob, other base), InvalidInput, NoRoom (too large) or CorruptData."""
        self._validate("tutor gap", manifest.tutor_gap, tutor, manifest.labels)
        if manifest.student_gap is not None:
            self._validate("student gap", manifest.student_gap, student, manifest.labels)

    def _validate(self, what: str, gap: EncodedGap, base: Model, labels: LabelSpace) -> None:
        try:
            stored = self._blobs.blob(gap.blob.digest)
        except NotFound:
            raise WrongState(f"the blob of the {what}, {gap.blob.digest}, is not complete here: put it first") from None
        if stored.bytes != gap.blob.bytes:
            raise InvalidInput(f"the {what} has {stored.bytes} bytes, its manifest says {gap.blob.bytes}")
        if stored.bytes > base.weights.bytes + _HEADROOM_BYTES:
            raise NoRoom(f"the {what} has {stored.bytes} bytes, more than its base model: use a smaller codec")
        found = check_gap_file(
            self._blobs.path(gap.blob.digest), gap.codec, self._blobs.path(base.weights.digest), gap.base_id, labels
        )
        if (found.schema_digest, found.fp32_bytes) != (gap.schema_digest, gap.fp32_bytes):
            raise InvalidInput(f"the {what} has another schema or size than its manifest says: make it again")
