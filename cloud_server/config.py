"""The cloud's configuration: `python -m cloud_server --help` lists it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from cloud_server.alarms_config import AlarmsConfig
from cloud_server.quotas import Quotas
from cloud_server.rollout_rules import DetectionBounds, OnHarm, RolloutRules
from diredi.config import ServiceConfig
from diredi.knowledge.jobs.specs import UNTRAINED_IMAGE_SIZE
from diredi.knowledge.recipe import BootstrapRecipe, CycleRecipe
from diredi.rpc.limits import Limits
from diredi.web.config import PagesConfig

_LARGEST_MESSAGE = 4 * 2**20
"""A chunk of an upload or a manifest has at most 1 MiB. What is larger is refused before it is in memory."""


class CloudConfig(ServiceConfig):
    """The configuration of the cloud."""

    model_config = SettingsConfigDict(env_prefix="DIREDI_CLOUD_")
    program: ClassVar[str] = "python -m cloud_server"

    listen: str = "127.0.0.1:7070"
    """The host:port to listen on. With port 0 the system chooses a free port."""
    state_dir: Path = Path("cloud-state")
    """The folder for the database, blobs and jobs."""
    database_url: SecretStr = SecretStr("")
    """The database: `sqlite:///path` or `postgresql://user@host/name`. Empty means SQLite in `state_dir`. It is never
    shown, because it may hold a password."""
    identity: Path = Path("pki/cloud")
    """The folder with ca.pem, cert.pem and key.pem, as `diredi pki issue` makes it."""
    authority: Path | None = None
    """The folder of the certificate authority, as `diredi pki init` makes it, with which the cloud signs what devices
    and sites enrol with and renew. None: it signs nothing, and `diredi pki issue` is the only way."""
    release_keys: Path | None = None
    """The folder with targets-key.pem, which signs releases. None means the identity folder. Without that key,
    releases wait for `diredi release sign`. How far numbers of releases and classes have come is written there, too
    (ledger.json), or into `state_dir` where this is None. On another disk, it is not restored with an old database."""
    accept_lost_past: bool = False
    """Start although the database does not know releases or class names that were given out, because no backup does.
    For one start: release numbers go on after the lost ones."""
    pages: PagesConfig = PagesConfig()
    """The operator's console: fleet, cycles, rollouts, models, sites and the log of decisions in a browser. Off by
    default."""
    alarms: AlarmsConfig = AlarmsConfig()
    """Who is told by webhook and e-mail when something begins that a person should look at."""
    metrics: str = Field(default="", pattern=r"^$|^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")
    """The host:port of figures for Prometheus (`/metrics`); empty: none. It has no log-in and no TLS: let only your
    Prometheus reach it, or listen at 127.0.0.1."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Events below this level are not logged."""

    # The first models: an architecture to train, or the path of weights. No teacher: the tutor learns from labels.
    presumed: str = "scenes:presumed"
    """The manufacturer's own data set: the path of a data.yaml, or `scenes:presumed` for the built-in scenes."""
    presumed_train: int | None = Field(None, ge=1)
    """How many training images of the built-in scenes to draw. None takes the default of the scenes."""
    presumed_val: int | None = Field(None, ge=1)
    """How many held-out images of the built-in scenes to draw. None takes the default of the scenes."""
    pool: str = ""
    """A data.yaml of public images. Their labels are not used. Cycles whose recipe names pool, chosen or pasted in
    `redistil_images` teach on them."""
    teacher: str = ""
    """The first teacher: an architecture to train, or the path of weights. Empty means no teacher; the tutor then
    learns from labels alone."""
    tutor: str = "yolo11n"
    """The first tutor: an architecture to train, such as `yolo11s`, or the path of weights."""
    student: str = "yolo11-w0.125"
    """The first student: an architecture to train, such as `yolo11n`, or the path of weights."""
    from_scratch: bool = False
    """Train the first models also where the starter release would do. It is used where the presumed data are the
    built-in scenes, and models, image size, bootstrap recipe and seed are the defaults."""
    image_size: int | None = Field(None, ge=32, le=2048, multiple_of=32)
    """The side of the square input of every detector, in pixels. None takes the student's own if its weights are given,
    else the tutor's own, else 160. The log says which was taken and why."""
    bootstrap: BootstrapRecipe = Field(default_factory=lambda: BootstrapRecipe.of(None))
    """How the first models are trained."""
    seed: int = 0
    """The seed of the built-in scenes, and of every training whose recipe does not name its own."""

    # Cycles.
    recipe: CycleRecipe = Field(default_factory=lambda: CycleRecipe.of(None))
    """What a cycle does, unless the request that starts it says otherwise."""
    max_harm: float = Field(0.01, ge=0, le=1)
    """The most mAP50 (0 to 1) that an update may cost on the manufacturer's held-out images. A gate rejects what costs
    more."""
    canary_devices: int = Field(1, ge=0)
    """How many devices of each site in the cycle run a release before all others do. With 0, the validation by the
    sites decides alone."""
    canary_deadline_s: float = Field(3600, gt=0)
    """How long a canary has to report the release, in seconds. Later it counts as failed."""
    external_validations: int = Field(3, ge=0)
    """How many sites that take no part in a cycle are asked to measure its candidate, among those of its scope that
    allow it (their `external_validation`) and are connected. If it is worse for half of them or more, it is rolled
    back."""
    rollout_steps: tuple[int | str, ...] = (100,)
    """Shares of the devices in percent, such as [5, 25, 100], that get a release one step after the other, once its
    canaries and sites have passed it. They rise and end with 100. Groups of sites may come before, such as
    ["group:pilot", 25, 100]."""
    rollout_step_s: float = Field(86_400, gt=0)
    """How long each step of a rollout lasts at least, in seconds."""
    rollout_min_success: float = Field(0.9, ge=0, le=1)
    """The share of the devices of a step that have to run the release, and detect well with it, before the next
    step."""
    rollout_max_failures: float = Field(0.05, ge=0, le=1)
    """The share of the devices that tried a release that may fail to install it. If more do, the rollout stops, as
    `rollout_on_harm` says."""
    rollout_max_unhealthy: float = Field(0.05, ge=0, le=1)
    """The share of the devices that run a release that may detect badly with it: outside of one of the four bounds that
    follow. If more do, the rollout stops, as `rollout_on_harm` says."""
    rollout_max_failed_frames: float = Field(0.01, ge=0, le=1)
    """The share of its frames on which a release may fail on a device, though the release before detects these."""
    rollout_max_dropped_frames: float = Field(0.01, ge=0, le=1)
    """The share of a device's frames on which no model may detect."""
    rollout_max_confidence_loss: float = Field(0.15, ge=0, le=1)
    """By how much the mean confidence of a device's boxes may be below that of the release before (0 to 1)."""
    rollout_max_differing: float = Field(0.5, ge=0, le=1)
    """The share of a device's confident boxes that may differ from those of the release before on the same frames. It
    is known of devices that let a release run beside the one before (their `shadow_s`)."""
    rollout_on_harm: OnHarm = OnHarm.PAUSE
    """What a rollout does that has more failures or more devices that detect badly than it may: `pause` until a person
    goes on with it or ends it (`diredi rollout`), or `abort`: the devices get the release before again, at once."""
    progress_deadline_s: float = Field(7 * 86_400, gt=0)
    """How long a cycle may make no progress, in seconds, in any state; a person has as long to approve it. Later it
    ends as FAILED, or as ROLLED_BACK if it had a release."""
    straggler_deadline_s: float = Field(86_400, gt=0)
    """How long a site may make no progress, in seconds, while another site of the same cycle has uploaded and waits.
    Later it drops out and the cycle goes on without it."""
    job_tries: int = Field(3, ge=1)
    """How often a job is started again after its process died, the first start included."""
    max_blob_mib: int = Field(2048, ge=1)
    """The largest upload that is accepted, in MiB."""

    # What one party may hold at once, so that no party stops the others.
    max_streams: int = Field(512, ge=1)
    """How many streams an identity may have open at once, downloads not counted. More are refused."""
    max_downloads: int = Field(16, ge=1)
    """How many downloads an identity may have under way at once. More are refused."""
    max_calls: int = Field(16, ge=1)
    """How many calls of an identity may wait for their answer at once. More are refused."""
    max_calls_per_s: float = Field(250.0, gt=0)
    """How many calls and streams an identity may begin in a second, and for a moment twice as many. Others are refused,
    with the time to wait, which our clients obey."""
    max_connections_per_address: int | None = Field(None, ge=1)
    """How many connections an address may have. The newest of those that are too many are closed. None takes three
    quarters of the files that the process may open."""
    handshake_deadline_s: float = Field(10.0, gt=0)
    """How long a connection may take until its certificate is verified, in seconds. Later it is closed."""

    disk_reserve_mib: int = Field(256, ge=0)
    """How much of the disk stays free of uploads, in MiB, so that the database on it can go on."""
    max_uploads_per_cycle: int = Field(64, ge=1)
    """How many files a site may send for one cycle. All of them may weigh twice the models that its gaps are
    differences to, and 8 MiB."""
    max_classes_per_cycle: int = Field(500, ge=1)
    """How many new class names a site may propose in one cycle."""
    max_classes_per_site: int = Field(1000, ge=1)
    """How many new class names a site may propose in all its cycles."""
    max_classes: int = Field(5000, ge=1)
    """How many class names the fleet may have, and each scope with it."""
    max_installs_per_device: int = Field(50, ge=1)
    """How many reports of installations are kept of a device, the newest ones."""
    keep_unreferenced_s: float = Field(7 * 86_400, ge=0)
    """How long a file in the blob store is kept to which nothing refers, in seconds. A site's upload to which nothing
    refers goes as soon as its cycle is over."""

    @field_validator("rollout_steps")
    @classmethod
    def _rise_to_100(cls, steps: tuple[int | str, ...]) -> tuple[int | str, ...]:
        shares = [step for step in steps if isinstance(step, int)]
        groups = steps[: len(steps) - len(shares)]
        if not shares or shares[-1] != 100 or shares[0] < 1 or shares != sorted(set(shares)):
            raise ValueError("the shares of rollout_steps must rise and end with 100, such as [5, 25, 100]")
        if not all(isinstance(group, str) and group.startswith("group:") for group in groups):
            raise ValueError('groups come first in rollout_steps, such as ["group:pilot", 25, 100]')
        return steps

    @property
    def rollout_rules(self) -> RolloutRules:
        """When a rollout goes on or pauses."""
        return RolloutRules(
            step_s=self.rollout_step_s, min_success=self.rollout_min_success, max_failures=self.rollout_max_failures,
            max_unhealthy=self.rollout_max_unhealthy, on_harm=self.rollout_on_harm,
            bounds=DetectionBounds(
                failed_frames=self.rollout_max_failed_frames, dropped_frames=self.rollout_max_dropped_frames,
                confidence_loss=self.rollout_max_confidence_loss, differing_boxes=self.rollout_max_differing,
            ),
        )  # fmt: skip

    @property
    def effective_database_url(self) -> str:
        """The URL of the database: the one that is named, or that of a SQLite file in `state_dir`."""
        return self.database_url.get_secret_value() or f"sqlite:///{self.state_dir / 'cloud.sqlite'}"

    @property
    def quotas(self) -> Quotas:
        """How much of each thing one party may make grow."""
        return Quotas(
            uploads_per_cycle=self.max_uploads_per_cycle,
            classes_per_cycle=self.max_classes_per_cycle,
            classes_per_site=self.max_classes_per_site,
            classes=self.max_classes,
            installs_per_device=self.max_installs_per_device,
        )

    @property
    def limits(self) -> Limits:
        """What one party may hold of the server at once."""
        return Limits(
            streams=self.max_streams,
            downloads=self.max_downloads,
            calls=self.max_calls,
            calls_per_s=self.max_calls_per_s,
            connections=self.max_connections_per_address,
            handshake_s=self.handshake_deadline_s,
            message_bytes=_LARGEST_MESSAGE,
        )

    @property
    def cycle_recipe(self) -> CycleRecipe:
        """The recipe of cycles; `max_harm` and `seed` are the cloud's where the recipe does not name them."""
        shared = {"max_harm": self.max_harm, "seed": self.seed}
        return self.recipe.model_copy(update={k: v for k, v in shared.items() if k not in self.recipe.model_fields_set})

    @property
    def bootstrap_recipe(self) -> BootstrapRecipe:
        """The recipe of the first models; `seed` is the cloud's where the recipe does not name it."""
        if "seed" in self.bootstrap.model_fields_set:
            return self.bootstrap
        return self.bootstrap.model_copy(update={"seed": self.seed})

    @property
    def begins_with_starter(self) -> bool:
        """Whether the first models are those of the starter release, as `from_scratch` says."""
        names = ("presumed", "teacher", "tutor", "student")
        usual = self.image_size in (None, UNTRAINED_IMAGE_SIZE) and all(
            getattr(self, name) == type(self).model_fields[name].default for name in names
        )
        default = BootstrapRecipe.of(None)
        recipe = self.bootstrap_recipe.model_copy(update={"coreset_images": default.coreset_images})
        return usual and recipe == default and not self.from_scratch
