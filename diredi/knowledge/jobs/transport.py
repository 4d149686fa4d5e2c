"""Cloud job: what a model has learned since another becomes a gap for a third. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from diredi.knowledge.jobs.specs import GapFile, TransportSpec
from diredi.knowledge.transport import StoredModel, transport
from diredi.progress import OnProgress, report
from diredi.store.blobs import digest_of_file

CODEC: Final = "fp32-zstd"
"""Exact, since the gap does not travel."""


def main(spec: TransportSpec, folder: Path, on_progress: OnProgress) -> GapFile:
    """Write the gap.

    Raises:
        InvalidInput: The models do not fit together.
        CorruptData: A file is no model.
    """
    report(on_progress, "transport", 0.0, "reading models")
    learned, origin, target = (StoredModel.load(path) for path in (spec.learned, spec.origin, spec.target))
    gap = transport(learned, origin, target)
    path = folder / "transported.gap"
    gap.save(path, CODEC)
    blob = digest_of_file(path)
    return GapFile(
        path=path, digest=blob.digest, bytes=blob.bytes, codec=CODEC,
        fp32_bytes=target.weights.fp32_bytes, schema_digest=gap.weights.schema_digest(),
    )  # fmt: skip
