"""What the cloud knows, as frozen values: the store hands them out, handlers decide on them, servicers convert them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cloud_server.states import ENDS, State
from diredi.evaluation.figures import Figures
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob

Json = dict[str, Any]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class ModelKind(StrEnum):
    TEACHER = "teacher"
    TUTOR = "tutor"
    STUDENT = "student"


class Model(Record):
    """A detector in the registry; `id` is the digest of its weights."""

    id: str
    kind: ModelKind
    architecture: str
    image_size: int
    labels: LabelSpace
    weights: Blob
    onnx: Blob | None = None
    parent_id: str = ""
    cycle_id: str = ""
    presumed: Figures | None = None
    created: datetime


class ReleaseStatus(StrEnum):
    CANARY = "canary"  # only its canaries may have it
    RELEASED = "released"
    WITHDRAWN = "withdrawn"


class Release(Record):
    version: int
    student_id: str
    tutor_id: str
    cycle_id: str = ""
    status: ReleaseStatus
    canaries: tuple[str, ...] = ()
    """Keys of devices."""
    created: datetime


class EncodedGap(Record):
    blob: Blob
    codec: str
    fp32_bytes: int = Field(ge=0)
    base_id: str
    schema_digest: str


class GapManifest(Record):
    """What a site says about a gap: counts and figures, never contents."""

    cycle_id: str
    tutor_gap: EncodedGap
    student_gap: EncodedGap | None = None
    labels: LabelSpace
    train_images: int = Field(ge=0)
    held_out_images: int = Field(ge=0)
    boxes: dict[str, int] = {}
    recipe: Json = {}
    student_before: Figures
    tutor_after: Figures
    student_after: Figures | None = None


class Progress(Record):
    step: str
    fraction: float = Field(ge=0, le=1, allow_inf_nan=False)
    message: str = ""


class Transition(Record):
    """One recorded step: who ("operator/alice", "site/site-1", "cloud"), when, why, and the figures that decided it."""

    state: State
    at: datetime
    actor: str
    reason: str
    figures: Json = {}


class Cycle(Record):
    id: str
    site: str
    request_id: str
    state: State
    approved: bool = False
    recipe: Json
    base_tutor_id: str
    base_student_id: str
    updated_tutor_id: str = ""
    updated_student_id: str = ""
    release_version: int = 0
    gap: GapManifest | None = None
    site_after: Figures | None = None
    progress: Progress | None = None
    progressed_at: datetime
    created: datetime
    history: tuple[Transition, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in ENDS

    def figures_of(self, state: State) -> Json:
        """The figures that were recorded when the cycle became `state`; empty when it never did."""
        return next((t.figures for t in reversed(self.history) if t.state is state), {})


class Outcome(StrEnum):
    INSTALLED = "installed"
    FAILED = "failed"


class Install(Record):
    """How one installation on one device went."""

    release_version: int
    outcome: Outcome
    reason: str = ""
    at: datetime


class Vitals(Record):
    """What a device says of itself in a heartbeat."""

    release_version: int = 0
    frames: int = 0
    frames_per_second: float = 0.0
    latency_ms: float = 0.0


class Device(Record):
    name: str
    site: str
    release_version: int = 0
    frames: int = 0
    frames_per_second: float = 0.0
    latency_ms: float = 0.0
    last_seen: datetime
    installs: tuple[Install, ...] = ()

    @property
    def key(self) -> str:
        return device_key(self.site, self.name)


def device_key(site: str, name: str) -> str:
    """What tells devices apart: every site may have a camera-1."""
    return f"{site}/{name}"


class Site(Record):
    name: str
    auto_approve: bool
    last_seen: datetime
