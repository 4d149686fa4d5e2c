"""The validation of a gap that a site has uploaded: what its manifest says is compared with its bytes."""

from __future__ import annotations

from typing import Final

from cloud_server.entities import EncodedGap, GapManifest, Model
from diredi.errors import InvalidInput, NoRoom, NotFound, WrongState
from diredi.knowledge.check import check_gap_file
from diredi.labels import LabelSpace
from diredi.store.blobs import BlobStore

_HEADROOM_BYTES: Final = 2**20


class GapValidator:
    """Compares gaps with their manifests and their base models. It reads blobs and changes nothing."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def validate(self, manifest: GapManifest, tutor: Model, student: Model) -> None:
        """Validate all gaps of a manifest.

        Args:
            manifest: What the site says about its gaps.
            tutor: The base of the tutor gap.
            student: The base of the student gap.

        Raises:
            WrongState: A blob is missing or incomplete, or a gap has another base.
            InvalidInput: A gap differs from what its manifest says.
            NoRoom: A gap is larger than its base model.
            CorruptData: A gap cannot be decoded or holds values that are no numbers.
        """
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
        measured = check_gap_file(
            self._blobs.path(gap.blob.digest), gap.codec, self._blobs.path(base.weights.digest), gap.base_id, labels
        )
        if (measured.schema_digest, measured.fp32_bytes) != (gap.schema_digest, gap.fp32_bytes):
            raise InvalidInput(f"the {what} has another schema or size than its manifest says: make it again")
