"""What the cloud knows, as frozen values: the store hands them out, handlers decide on them, servicers convert them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cloud_server.states import BEFORE_UPLOAD, DROPPED, ENDS, State
from diredi.errors import NotFound
from diredi.evaluation.metrics import DetectionMetrics
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
    presumed: DetectionMetrics | None = None
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


class LambdaScore(Record):
    """The tutor with so much of a site's gap added, on that site's held-out images."""

    lam: float = Field(ge=0, le=2, allow_inf_nan=False)
    figures: DetectionMetrics


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
    student_before: DetectionMetrics
    tutor_after: DetectionMetrics
    student_after: DetectionMetrics | None = None
    scores: tuple[LambdaScore, ...] = Field((), max_length=64)
    style: Json | None = None
    signature: str = ""
    """The site's, in hex. Empty only for a gap from before there were signatures."""

    def equals_unsigned(self, other: GapManifest) -> bool:
        """Whatever the signatures: one who signs twice signs differently."""
        return self.model_copy(update={"signature": ""}) == other.model_copy(update={"signature": ""})


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


class Part(Record):
    """What one site has to do with a cycle, and what came of it."""

    site: str
    state: State = State.REQUESTED
    """REQUESTED to UPLOADED, or DECLINED or FAILED: it dropped out."""
    approved: bool = False
    dropped_because: str = ""
    publishes_style: bool = False
    """The site's policy, as it said when it last opened its stream before its upload."""
    gap: GapManifest | None = None
    certificate: str = ""
    """PEM, of the key that signed the gap's manifest."""
    after: DetectionMetrics | None = None
    """The new release on the site's held-out images."""
    progress: Progress | None = None
    progressed_at: datetime

    @property
    def active(self) -> bool:
        return self.state not in DROPPED


class Cycle(Record):
    id: str
    request_id: str
    state: State
    recipe: Json
    base_tutor_id: str
    base_student_id: str
    updated_tutor_id: str = ""
    updated_student_id: str = ""
    release_version: int = 0
    progress: Progress | None = None
    progressed_at: datetime
    created: datetime
    parts: tuple[Part, ...] = Field(min_length=1)
    """One a site, in the order in which they were asked."""
    history: tuple[Transition, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in ENDS

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(part.site for part in self.parts)

    @property
    def active_parts(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.active)

    @property
    def approved(self) -> bool:
        return bool(self.active_parts) and all(part.approved for part in self.active_parts)

    @property
    def gaps(self) -> tuple[tuple[str, GapManifest], ...]:
        """Site and manifest of each gap that is here."""
        return tuple((part.site, part.gap) for part in self.parts if part.gap is not None)

    @property
    def labels(self) -> LabelSpace:
        """The union of its gaps' classes: all are beginnings of the one list of ids that the cloud gave out."""
        return max((gap.labels for _, gap in self.gaps), key=len)

    def part(self, site: str) -> Part:
        """Return one site's part.

        Raises:
            NotFound: The site takes no part in this cycle.
        """
        part = next((part for part in self.parts if part.site == site), None)
        if part is None:
            raise NotFound(
                f"site {site!r} has no part in cycle {self.id!r}: `diredi cycle show {self.id}` names its sites"
            )
        return part

    def figures_of(self, state: State) -> Json:
        """The figures that were recorded when the cycle became `state`; empty when it never did."""
        return next((t.figures for t in reversed(self.history) if t.state is state), {})

    def redact_for(self, site: str) -> Cycle:
        """What that site may see of it: its own part and what became of the models, nothing of other sites."""
        if len(self.parts) == 1:
            return self
        history = tuple(_redact_transition(transition, site) for transition in self.history)
        mine = self.part(site)
        progress = mine.progress if self.state in BEFORE_UPLOAD else self.progress
        return self.model_copy(update={"parts": (mine,), "progress": progress, "history": history})


_OF_MODELS = frozenset({State.APPLIED, State.GATED, State.REDISTILLED, State.REJECTED})
_ON_PRESUMED = frozenset({"before", "after", "max_harm", "lam"})


def _redact_transition(transition: Transition, site: str) -> Transition:
    """Its own step in full; but who validates last ends the cycle by what all have said, and is told of that only its
    own."""
    said_by_all = transition.figures.get("sites")
    if transition.actor == f"site/{site}" and said_by_all is None:
        return transition
    silenced = _redact_foreign(transition)
    own = (said_by_all or {}).get(site)
    return silenced if own is None else silenced.model_copy(update={"figures": own})


def _redact_foreign(transition: Transition) -> Transition:
    """That it happened, and what it did to the models; not which site's doing it was and what that site said."""
    if transition.state in _OF_MODELS:
        figures = {name: value for name, value in transition.figures.items() if name in _ON_PRESUMED}
        return transition.model_copy(update={"figures": figures})
    kind = transition.actor.partition("/")[0]
    actor = transition.actor if kind in {"cloud", "operator"} else f"another {kind}"
    return transition.model_copy(update={"actor": actor, "reason": "", "figures": {}})


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
