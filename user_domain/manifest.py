"""Builds the manifest of a gap from the result of an extraction: counts, metrics and digests, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from diredi.evaluation.disclosure import counts_for_disclosure
from diredi.knowledge.jobs.specs import ExtractResult, GapFile
from diredi.labels import LabelSpace
from diredi.rpc import convert
from diredi.rpc.v1 import common_pb2, cycles_pb2
from diredi.store.files import atomic_write, make_folder, read_state
from user_domain.tasks import Task


def build_manifest(
    task: Task, labels: LabelSpace, result: ExtractResult, *, publish_style: bool
) -> cycles_pb2.GapManifest:
    """Build an unsigned manifest, field by field, so that whatever else is in the result stays here.

    Args:
        task: The extraction.
        labels: The label space of the gap; boxes of other classes are left out.
        result: What the job left.
        publish_style: The site's policy; without it the style stays here, too.
    """
    assert task.tutor and task.student
    manifest = cycles_pb2.GapManifest(
        cycle_id=task.cycle_id,
        scope=task.scope,
        tutor_gap=_gap(result.tutor_gap, task.tutor.id),
        labels=convert.labels_to(labels),
        train_images=result.train_images,
        held_out_images=result.held_out_images,
        boxes=counts_for_disclosure({name: count for name, count in result.boxes.items() if name in labels.names}),
        recipe=convert.struct_to(task.recipe),
        student_before=convert.metrics_to(result.student_before),
        tutor_after=convert.metrics_to(result.tutor_after),
        scores=[
            cycles_pb2.LambdaScore(lam=score.lam, metrics=convert.metrics_to(score.metrics))
            for score in result.scores
            if score.metrics.images
        ],
    )
    manifest.decisions.extend(cycles_pb2.Decision(**decision.model_dump()) for decision in result.decisions)
    if result.student_gap is not None:
        manifest.student_gap.CopyFrom(_gap(result.student_gap, task.student.id))
    if result.student_after is not None:
        manifest.student_after.CopyFrom(convert.metrics_to(result.student_after))
    if publish_style and result.style is not None:
        manifest.style.CopyFrom(convert.struct_to(result.style.model_dump(mode="json")))
    return manifest


def _gap(gap: GapFile, base_id: str) -> cycles_pb2.EncodedGap:
    return cycles_pb2.EncodedGap(
        blob=common_pb2.BlobRef(digest=gap.digest, bytes=gap.bytes),
        codec=gap.codec,
        fp32_bytes=gap.fp32_bytes,
        base_id=base_id,
        schema_digest=gap.schema_digest,
    )


class ManifestStore:
    """Keep the manifest of each gap that leaves, for the site's own people to read later."""

    def __init__(self, folder: Path) -> None:
        """Keep them in a folder, which need not exist."""
        self._folder = folder

    def keep(self, manifest: cycles_pb2.GapManifest) -> None:
        """Keep a manifest that is about to leave. Raises NoRoom."""
        make_folder(self._folder)
        text = json.dumps(MessageToDict(manifest, preserving_proto_field_name=True), indent=1, ensure_ascii=False)
        atomic_write(self._path(manifest.cycle_id), text)

    def find(self, cycle_id: str) -> dict[str, Any] | None:
        """Return the manifest of a cycle as JSON; None where none is kept."""
        return read_state(self._path(cycle_id), json.loads)

    def _path(self, cycle_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(cycle_id.encode()).hexdigest()[:32]}.json"
