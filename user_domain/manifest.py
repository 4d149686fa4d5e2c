"""The result of extraction as the manifest that the cloud gets: counts, figures, digests; nothing else fits in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from diredi.data.style import SiteStyle
from diredi.errors import DirediError
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace
from diredi.rpc import convert
from diredi.rpc.v1 import common_pb2, cycles_pb2
from user_domain.tasks import Task


class GapFile(BaseModel):
    """One encoded gap on this machine's disk."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: Path
    digest: str
    bytes: int
    codec: str
    fp32_bytes: int
    schema_digest: str

    @classmethod
    def from_result(cls, result: dict[str, Any]) -> list[Self]:
        """The tutor's gap, and the student's where the site distilled one."""
        return [cls.model_validate(result[name]) for name in ("tutor_gap", "student_gap") if result.get(name)]

    def to_message(self, base_id: str) -> cycles_pb2.EncodedGap:
        return cycles_pb2.EncodedGap(
            blob=common_pb2.BlobRef(digest=self.digest, bytes=self.bytes),
            codec=self.codec,
            fp32_bytes=self.fp32_bytes,
            base_id=base_id,
            schema_digest=self.schema_digest,
        )


def build_manifest(
    task: Task, labels: LabelSpace, result: dict[str, Any], *, publish_style: bool
) -> cycles_pb2.GapManifest:
    """Field by field, so that whatever else a job leaves in its result stays here; not signed yet.

    `publish_style` is the site's policy: without it a style stays here too.
    Raises DirediError when the result is not what the contract of the job says.
    """
    try:
        manifest = _manifest(task, labels, result)
        if publish_style and result.get("style"):
            style = SiteStyle.model_validate(result["style"])
            manifest.style.CopyFrom(convert.struct_to(style.model_dump(mode="json")))
        return manifest
    except (KeyError, TypeError, ValidationError) as error:
        raise DirediError(f"the job's result is not usable ({type(error).__name__}: {error})") from error


def _manifest(task: Task, labels: LabelSpace, result: dict[str, Any]) -> cycles_pb2.GapManifest:
    assert task.tutor and task.student
    manifest = cycles_pb2.GapManifest(
        cycle_id=task.cycle_id,
        tutor_gap=GapFile.model_validate(result["tutor_gap"]).to_message(task.tutor.id),
        labels=convert.labels_to(labels),
        train_images=result["train_images"],
        held_out_images=result["held_out_images"],
        boxes={name: int(count) for name, count in result["boxes"].items() if name in labels.names},
        recipe=convert.struct_to(task.recipe),
        student_before=_figures(result["student_before"]),
        tutor_after=_figures(result["tutor_after"]),
        scores=[
            cycles_pb2.LambdaScore(lam=float(score["lam"]), figures=_figures(score["figures"]))
            for score in result.get("scores") or []
        ],
    )
    if result.get("student_gap"):
        manifest.student_gap.CopyFrom(GapFile.model_validate(result["student_gap"]).to_message(task.student.id))
    if result.get("student_after"):
        manifest.student_after.CopyFrom(_figures(result["student_after"]))
    return manifest


def _figures(values: dict[str, Any]) -> common_pb2.Figures:
    return convert.metrics_to(DetectionMetrics.model_validate(values))
