"""What the cloud knows, as frozen values: the store returns them, rules decide on them, servicers convert them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from cloud_server.scopes import FLEET
from cloud_server.states import BEFORE_UPLOAD, DROPPED, ENDS, State
from diredi.errors import NotFound
from diredi.evaluation.metrics import DetectionMetrics
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob
from diredi.trust.identity import PEOPLE

Json = dict[str, Any]


class Record(BaseModel):
    """A frozen value that can be read from a row of the database."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class ModelKind(StrEnum):
    """What a model is for."""

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
    scope: str = FLEET
    """That of the cycle that made it (`cloud_server.scopes`)."""
    created: datetime


class ReleaseStatus(StrEnum):
    """Who may have a release."""

    CANARY = "canary"  # only its canaries may have it
    RELEASED = "released"
    WITHDRAWN = "withdrawn"


class Rollout(Record):
    """How far a release has come on its way to all devices of its scope, once its canaries have passed."""

    steps: tuple[int | str, ...]
    """Groups of sites as `group:NAME`, then shares of the devices in percent, which rise to 100."""
    rings: dict[str, tuple[str, ...]] = {}
    """The sites of each group, as they were when the release was made."""
    step: int = 0
    """The step under way, from 0."""
    paused: str = ""
    """Why no further devices get it; empty: it goes on."""
    waited_s: float = 0.0
    """How long the step lasts, as the cloud has counted, in seconds."""

    @property
    def percent(self) -> int:
        """The share of the devices that may have the release, beside those of `early_sites`."""
        shares = [step for step in self.steps[: self.step + 1] if isinstance(step, int)]
        return shares[-1] if shares else 0

    @property
    def early_sites(self) -> frozenset[str]:
        """The sites of the groups that have had their step."""
        groups = [step for step in self.steps[: self.step + 1] if isinstance(step, str)]
        return frozenset(site for group in groups for site in self.rings.get(group, ()))

    @property
    def step_names(self) -> list[str]:
        """The steps in words."""
        return [step if isinstance(step, str) else f"{step} %" for step in self.steps]

    @property
    def complete(self) -> bool:
        """Whether all devices may have it."""
        return self.percent >= 100


class Release(Record):
    """A versioned student that devices may install."""

    version: int
    student_id: str
    tutor_id: str
    cycle_id: str = ""
    status: ReleaseStatus
    canaries: tuple[str, ...] = ()
    """Keys of devices."""
    scope: str = FLEET
    """Whom it is for (`cloud_server.scopes`)."""
    rollout: Rollout | None = None
    """None: once released, it is for all devices at once."""
    created: datetime


class EncodedGap(Record):
    """The file of a gap: which blob, in which codec, and the base that it is a difference to."""

    blob: Blob
    codec: str
    fp32_bytes: int = Field(ge=0)
    base_id: str
    schema_digest: str


class LambdaScore(Record):
    """Metrics of the tutor with a share of a site's gap added, on that site's held-out images."""

    lam: float = Field(ge=0, le=2, allow_inf_nan=False)
    metrics: DetectionMetrics = Field(validation_alias=AliasChoices("metrics", "figures"))
    """Called "figures" in databases of before."""


class Decision(Record):
    """One thing that a site has decided for itself, in words."""

    subject: str = Field(max_length=64)
    choice: str = Field(max_length=4000)
    because: str = Field(max_length=8000)

    @field_validator("subject", "choice", "because")
    @classmethod
    def _is_printable(cls, text: str) -> str:
        if not text.isprintable():
            raise ValueError("has characters that cannot be printed")
        return text


class GapManifest(Record):
    """What a site says about its gaps: counts and metrics, never contents."""

    cycle_id: str
    scope: str = ""
    """Whom the site has sent it for; empty for a gap from before that was said."""
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
    decisions: tuple[Decision, ...] = Field((), max_length=16)
    style: Json | None = None
    signature: str = ""
    """The site's, in hex. Empty only for a gap from before there were signatures."""

    @property
    def all_metrics(self) -> tuple[DetectionMetrics, ...]:
        """All metrics that it has."""
        maybe = (self.student_before, self.tutor_after, self.student_after, *(score.metrics for score in self.scores))
        return tuple(metrics for metrics in maybe if metrics is not None)

    def equals_unsigned(self, other: GapManifest) -> bool:
        """Return whether both say the same, whatever their signatures; each signing gives another signature."""
        return self.model_copy(update={"signature": ""}) == other.model_copy(update={"signature": ""})


class Progress(Record):
    """How far a long step is."""

    step: str
    fraction: float = Field(ge=0, le=1, allow_inf_nan=False)
    message: str = ""


class Transition(Record):
    """One recorded step of a cycle.

    `actor` is an identity such as "operator/alice", or "cloud"; `figures` are what decided the step.
    """

    state: State
    at: datetime
    actor: str
    reason: str
    metrics: Json = {}


class Part(Record):
    """One site's part in a cycle."""

    site: str
    state: State = State.REQUESTED
    """REQUESTED to UPLOADED; DECLINED or FAILED where the site has dropped out."""
    approved: bool = False
    dropped_because: str = ""
    publishes_style: bool = False
    """Whether the site's manifest may have a style, as it last said before its upload."""
    before: DetectionMetrics | None = None
    """Metrics of the release that is rebased, on the site's held-out images; only in a rebase."""
    gap: GapManifest | None = None
    certificate: str = ""
    """PEM of the certificate whose key signed the gap's manifest."""
    after: DetectionMetrics | None = None
    """Metrics of the new release on the site's held-out images."""
    progress: Progress | None = None
    progressed_at: datetime

    @property
    def active(self) -> bool:
        """Whether the site has not dropped out."""
        return self.state not in DROPPED


class ExternalValidation(Record):
    """What a site that takes no part in a cycle says about its candidate."""

    before: DetectionMetrics | None = None
    """Metrics of the release that the candidate would replace, on the site's held-out images."""
    after: DetectionMetrics | None = None
    """Metrics of the candidate on the same images."""
    failed: str = ""
    """Why nothing comes of it; empty: it is waited for, or has been answered."""

    @property
    def is_open(self) -> bool:
        """Whether the answer is waited for."""
        return not self.failed and self.after is None


class Cycle(Record):
    """One update cycle, with the parts of its sites and its history."""

    id: str
    request_id: str
    state: State
    scope: str = FLEET
    """Whom its release is for (`cloud_server.scopes`)."""
    rebases: int = 0
    """The release that it carries over to the base tutor and student; 0: its sites learn (`cycles.rebase`)."""
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
    """One for each site, in the order in which the sites were named."""
    external: dict[str, ExternalValidation] = {}
    """By site: those that take no part and are asked about the candidate."""
    history: tuple[Transition, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether the cycle has reached a final state."""
        return self.state in ENDS

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of all sites, those that have dropped out included."""
        return tuple(part.site for part in self.parts)

    @property
    def active_parts(self) -> tuple[Part, ...]:
        """Parts of the sites that have not dropped out."""
        return tuple(part for part in self.parts if part.active)

    @property
    def approved(self) -> bool:
        """Whether every site that has not dropped out has approved."""
        return bool(self.active_parts) and all(part.approved for part in self.active_parts)

    @property
    def gaps(self) -> tuple[tuple[str, GapManifest], ...]:
        """Site and manifest of each gap that has been uploaded."""
        return tuple((part.site, part.gap) for part in self.parts if part.gap is not None)

    @property
    def labels(self) -> LabelSpace:
        """The classes of all gaps.

        Each gap has a beginning of one list of classes, that of the cycle's scope, so the longest has them all.
        """
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

    def metrics_of(self, state: State) -> Json:
        """Return the figures that were recorded when the cycle became `state`; empty if it never did."""
        return next((t.metrics for t in reversed(self.history) if t.state is state), {})

    def redact_for(self, site: str) -> Cycle:
        """Return what one site may see: its own part and what became of the models, nothing of other sites.

        Raises:
            NotFound: The site takes no part in this cycle.
        """
        history = tuple(_redact_external(transition) for transition in self.history)
        if len(self.parts) == 1:
            return self.model_copy(update={"external": {}, "history": history})
        part = self.part(site)
        history = tuple(_redact_transition(transition, site) for transition in history)
        progress = part.progress if self.state in BEFORE_UPLOAD else self.progress
        return self.model_copy(update={"parts": (part,), "external": {}, "progress": progress, "history": history})


EXTERNAL: Final = "external"
"""Among the metrics of a transition: the figures of sites that take no part, by site."""
_OF_MODELS = frozenset({State.APPLIED, State.GATED, State.REDISTILLED, State.REJECTED})
_ON_PRESUMED = frozenset({"before", "after", "max_harm", "lam", "false_alarms", "max_false_alarms"})


def _redact_external(transition: Transition) -> Transition:
    """Leave out what sites said that take no part, and who they are."""
    if EXTERNAL not in transition.metrics:
        return transition
    metrics = {name: value for name, value in transition.metrics.items() if name != EXTERNAL}
    return transition.model_copy(update={"metrics": metrics})


def _redact_transition(transition: Transition, site: str) -> Transition:
    metrics_by_site = transition.metrics.get("sites")
    if metrics_by_site is None:
        return transition if transition.actor == f"site/{site}" else _redact_foreign(transition)
    # The site that validates last ends the cycle by what all sites have reported. Each site sees its own figures only.
    redacted = _redact_foreign(transition)
    own_metrics = metrics_by_site.get(site)
    return redacted if own_metrics is None else redacted.model_copy(update={"metrics": own_metrics})


def _redact_foreign(transition: Transition) -> Transition:
    """Keep that a step happened and what it did to the models, without the site that took it and what it reported."""
    if transition.state in _OF_MODELS:
        metrics = {name: value for name, value in transition.metrics.items() if name in _ON_PRESUMED}
        return transition.model_copy(update={"metrics": metrics})
    kind = transition.actor.partition("/")[0]
    actor = transition.actor if kind in {"cloud", *PEOPLE} else f"another {kind}"
    return transition.model_copy(update={"actor": actor, "reason": "", "metrics": {}})


class Outcome(StrEnum):
    """How an installation ended."""

    INSTALLED = "installed"
    FAILED = "failed"


class Install(Record):
    """One installation of a release on a device."""

    release_version: int
    outcome: Outcome
    reason: str = ""
    at: datetime


class SourceState(StrEnum):
    """How a source of frames of a device is, as the wire contract says."""

    OPENING = "opening"
    OK = "ok"
    AWAY = "away"
    REFUSED = "refused"
    UNREADABLE = "unreadable"
    ENDED = "ended"


class UpdateWait(StrEnum):
    """Why a device waits with a release that it is told to run: its own site has said so."""

    NONE = ""
    HELD = "held"
    WINDOW = "window"


class DetectionHealth(Record):
    """How the release that a device runs has detected since the device was started, as the wire contract says."""

    frames: int = Field(default=0, ge=0)
    failed_frames: int = Field(default=0, ge=0)
    dropped_frames: int = Field(default=0, ge=0)
    boxes: int = Field(default=0, ge=0)
    confidence: float = Field(default=0.0, ge=0, le=1)
    boxes_before: int = Field(default=0, ge=0)
    confidence_before: float = Field(default=0.0, ge=0, le=1)
    compared_boxes: int = Field(default=0, ge=0)
    differing_boxes: int = Field(default=0, ge=0)


class Vitals(Record):
    """What a device reports of itself in a heartbeat."""

    release_version: int = 0
    frames: int = 0
    frames_per_second: float = 0.0
    latency_ms: float = 0.0
    sources: dict[str, SourceState] = {}
    """State of each source of frames by its name."""
    drifts: dict[str, str] = {}
    """What has changed and stays so, by the name of the source where anything has."""
    certificate_expires: datetime | None = None
    failed_frames: int = 0
    """Frames on which its model has failed since it was started."""
    updates_stalled: bool = False
    """Whether it has no signed metadata that hold, so that it takes no release."""
    runtime: str = ""
    """What runs its network; empty where it has no release, or has not said so."""
    update_wait: UpdateWait = UpdateWait.NONE
    detection: DetectionHealth | None = None
    """Of `release_version`; None where it has not said so."""


UNHEALTHY_SHARE: Final = 0.01
"""Share of its frames on which the model of a device may fail."""


class Device(Record):
    """A device that has called, and its installations, oldest first."""

    name: str
    site: str
    release_version: int = 0
    frames: int = 0
    frames_per_second: float = 0.0
    latency_ms: float = 0.0
    sources: dict[str, SourceState] = {}
    drifts: dict[str, str] = {}
    certificate_expires: datetime | None = None
    failed_frames: int = 0
    updates_stalled: bool = False
    runtime: str = ""
    update_wait: UpdateWait = UpdateWait.NONE
    detection: DetectionHealth | None = None
    last_seen: datetime
    installs: tuple[Install, ...] = ()

    @property
    def key(self) -> str:
        """The device's key, see `device_key`."""
        return device_key(self.site, self.name)


def device_key(site: str, name: str) -> str:
    """Return the key of a device, SITE/NAME; names alone are unique within a site only."""
    return f"{site}/{name}"


class Site(Record):
    """A site that has called."""

    name: str
    auto_approve: bool
    validates_external: bool = False
    """Whether it may be asked about candidates of cycles that it takes no part in."""
    last_seen: datetime
