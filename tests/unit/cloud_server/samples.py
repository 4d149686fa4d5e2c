"""Values that the tests of the cloud stand on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cloud_server.entities import Cycle, EncodedGap, GapManifest, Model, ModelKind, Part, ReleaseStatus
from cloud_server.states import BEFORE_UPLOAD, DROPPED, State
from cloud_server.store import Repository
from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
LABELS = LabelSpace(names=("car", "person"))
GROWN = LABELS.expand(["forklift"])


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def digest(character: str) -> str:
    return "sha256:" + character * 64


def metrics(map50: float, **ap50: float) -> DetectionMetrics:
    per_class = {name: ClassMetrics(ap50=value, ap50_95=value / 2, boxes=3) for name, value in ap50.items()}
    return DetectionMetrics(
        map50=map50, map50_95=map50 / 2, precision=0.5, recall=0.5, f1=0.5, per_class=per_class, images=8
    )  # fmt: skip


def model(character: str, kind: ModelKind = ModelKind.TUTOR, labels: LabelSpace = LABELS) -> Model:
    onnx = Blob(digest("f"), 5) if kind is ModelKind.STUDENT else None
    return Model(
        id=digest(character), kind=kind, architecture="yolo11n", image_size=64, labels=labels,
        weights=Blob(digest(character), 9), onnx=onnx, presumed=metrics(0.5, car=0.5), created=NOON,
    )  # fmt: skip


TUTOR, STUDENT = model("a"), model("b", ModelKind.STUDENT)
NEW_TUTOR, NEW_STUDENT = model("c", labels=GROWN), model("d", ModelKind.STUDENT, GROWN)


def first_release(r: Repository) -> None:
    """Models, label space, release 1 and two known sites."""
    r.models.add(TUTOR)
    r.models.add(STUDENT)
    r.classes.assign_ids(LABELS.names, "", NOON)
    r.releases.add(STUDENT, TUTOR.id, ReleaseStatus.RELEASED, (), "", NOON)
    for site in ("site-1", "site-2"):
        r.sites.record_contact(site, NOON, auto_approve=True)


def cycle(state: State = State.REQUESTED, **fields: object) -> Cycle:
    """Of site-1 alone, unless `parts` says otherwise."""
    at_site = state if state in BEFORE_UPLOAD | DROPPED else State.UPLOADED
    values: dict[str, object] = {
        "id": "c1", "request_id": "r1", "state": state, "recipe": {"lam": 0.5}, "parts": (part(state=at_site),),
        "base_tutor_id": TUTOR.id, "base_student_id": STUDENT.id, "progressed_at": NOON, "created": NOON,
    }  # fmt: skip
    return Cycle.model_validate(values | fields)


def part(site: str = "site-1", state: State = State.REQUESTED, **fields: object) -> Part:
    return Part.model_validate({"site": site, "state": state, "progressed_at": NOON} | fields)


def manifest(cycle_id: str, labels: LabelSpace = GROWN, base_id: str = TUTOR.id) -> GapManifest:
    gap = EncodedGap(
        blob=Blob(digest("e"), 7), codec="int8-row-zstd", fp32_bytes=36, base_id=base_id, schema_digest=digest("0")
    )
    return GapManifest(
        cycle_id=cycle_id, tutor_gap=gap, labels=labels, train_images=40, held_out_images=8,
        boxes={"forklift": 12}, recipe={"lam": 0.5}, student_before=metrics(0.4, car=0.8, forklift=0.0),
        tutor_after=metrics(0.7, car=0.8, forklift=0.6),
    )  # fmt: skip
