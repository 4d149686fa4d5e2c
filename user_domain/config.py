"""The configuration of a user domain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from diredi.config import ServiceConfig
from diredi.knowledge.jobs.specs import NoLabelFile
from diredi.labels import ClassName
from diredi.web.config import PagesConfig
from user_domain.policy import Approval, Bounds, ExternalPolicy
from user_domain.update_windows import Window


class UserDomainConfig(ServiceConfig):
    """Every field as a flag, as DIREDI_SITE_<FIELD> in the environment, or in the YAML file named by `--config`."""

    model_config = SettingsConfigDict(env_prefix="DIREDI_SITE_")
    program: ClassVar[str] = "python -m user_domain"

    site: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The name of this site. Its certificate must have the same name."""
    cloud: str
    """The host:port of the cloud, which this service connects to."""
    identity: Path
    """The folder with ca.pem, cert.pem and key.pem, as `diredi pki issue` makes it."""
    token: Path | None = None
    """The file with an enrolment token of `diredi site enroll`. Where `identity` has no certificate yet, this service
    makes a key there, gets a certificate as soon as the cloud answers, and deletes the file."""
    state_dir: Path
    """The folder for downloads, jobs, samples, the journal and the ledger of what left. It must survive restarts."""
    data: str
    """The private data set: the path of a data.yaml, or `scenes:SITE` for built-in scenes. It is read and never
    written. Samples that somebody has labelled join it; `samples` stands for these alone."""
    class_names: dict[str, ClassName] = Field(default_factory=dict)
    """What classes of the data set are called elsewhere, such as `{cars: car}`: two of one name become one class. A
    name that stays itself, such as `{cars: cars}`, is a class of its own, however much it is like a known one. Without
    such a line a cycle ends before anything is trained where a class may be a known one in another spelling or a
    plural, and the log proposes the name."""
    labelled: bool = True
    """Whether the data set has labels. Without, it needs neither labels nor `names`, and the site takes part in cycles
    in which an oracle labels its images (`diredi cycle start --labels oracle`)."""
    no_label_file: NoLabelFile = "unlabelled"
    """What an image without a label file is, in a data set that has labels: one that nobody has labelled
    (`unlabelled`), or one that shows nothing (`background`). The first is not measured on, and teaches only what an
    `oracle` of the site says of known classes. An empty label file always means that an image shows nothing."""
    oracle: Path | None = None
    """The file of a detector at this site, such as a large one, that labels the images in such a cycle. In others it
    says what is on images that nobody has labelled. None takes the cloud's tutor in such a cycle, and nobody in
    others."""
    scenes_train: int | None = Field(None, ge=1)
    """How many training images of the built-in scenes to draw. None takes the default of the scenes."""
    scenes_val: int | None = Field(None, ge=1)
    """How many held-out images of the built-in scenes to draw. None takes the default of the scenes."""
    seed: int = 0
    """The seed of the built-in scenes."""
    listen: str = "127.0.0.1:0"
    """The host:port of LocalService, for the edge nodes of this site. With port 0 the system chooses a free port."""
    approval: Approval = "bounds"
    """Who agrees to a cycle. `bounds` begins by itself whatever is within `bounds`. `ask` waits until somebody at the
    site runs `diredi site approve` with this site's key. Both refuse what is outside of `bounds`. `never` refuses
    everything. `always` begins everything, whatever it asks for. `auto` is the old name of `bounds`."""
    external_validation: ExternalPolicy = "never"
    """Whether this site also measures, with its labels, candidates of cycles that it takes no part in, so that those
    who gain by a release are not its only judges. `never` refuses all. `bounds` measures one candidate of a cycle,
    beside the release that it would replace, within `bounds` and at most `bounds.max_external_per_week`; two lots of
    rounded figures leave then. Nothing else that the site agrees to allows it."""
    bounds: Bounds = Bounds()
    """The most that this site takes part in. A recipe that asks for more is refused before anything is downloaded, and
    the reason names the bound."""
    audit_images: int = Field(200, ge=0)
    """On how many training images, drawn at random, the deployed models look for wrong labels before they
    learn from them, and on a quarter as many held-out ones. What they find is on a page with pictures that the log
    names. It is never sent, and nothing is corrected. 0 looks at none."""
    min_held_out: int = Field(20, ge=1)
    """Figures of a model leave only if there are so many held-out images. Each is the median of those of three parts of
    the images, rounded to a hundredth, without the classes of fewer than ten boxes, so that no single image decides it.
    With fewer images the cloud hears that there are too few."""
    publish_style: bool = False
    """Whether the manifest of a gap also has fourteen averages of colour, light, blur and noise over all training
    images. With them the cloud can make its own images look like those of this site. They describe the whole set, no
    single image."""
    update_windows: tuple[str, ...] = ()
    """When the site's devices may change over to a new release, such as ["mon-fri 22:00-05:00", "sun 00:00-00:00"].
    They ask this service, and fetch releases at any time. Empty: they change over whenever they have one."""
    time_zone: str = ""
    """The time zone of `update_windows`, such as Europe/Berlin."""
    overlay: bool = False
    """Whether to measure batch-norm statistics of the site's own images for each release that its edge nodes run. The
    nodes run the release with them where that finds more on the held-out images. Nothing of it leaves the site."""
    nodes: dict[str, Annotated[str, Field(pattern=r"^http://[^/?#@\s]+/?$")]] = Field(default_factory=dict)
    """The web servers of this site's edge nodes (`http` in their configuration), by name, such as `{camera-1:
    http://10.0.0.7:8080}`. The pages show what these cameras see."""
    pages: PagesConfig = PagesConfig()
    """The site's web pages: what the cloud asks for and what left, in a browser inside the site. Off by default."""
    metrics: str = Field(default="", pattern=r"^$|^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")
    """The host:port of figures for Prometheus (`/metrics`); empty: none. It has no log-in and no TLS: let only your
    Prometheus reach it, or listen at 127.0.0.1."""
    fit_input: bool = False
    """Whether to give each release that its edge nodes run an input of the shape of the site's images, which saves two
    fifths of the work where cameras are wide. The nodes run it so if it loses little on the held-out images."""
    quantise: bool = False
    """Whether to write each release that its edge nodes run with 8 bits, calibrated with the site's own training
    images. The nodes run it so if it loses little on the held-out images: in the mean, for each class, and at
    `quantise_confidence`. Nothing of it leaves the site."""
    quantise_confidence: float = Field(0.25, gt=0, le=1)
    """The confidence at which this site's edge nodes report (0 to 1)."""
    max_samples: int = Field(10_000, ge=0)
    """How many frames from edge nodes are kept. When there are as many, the one that may teach least makes room for a
    new one; never one that somebody has labelled."""
    max_samples_mib: int = Field(2048, ge=0)
    """How much these frames may take on the disk, in MiB."""
    max_sample_days: float = Field(90.0, gt=0)
    """After how many days a frame is deleted that nobody has labelled."""
    samples_held_out: float = Field(0.2, ge=0, lt=1)
    """Which share of each camera's labelled samples is held out, the newest of them (0 to 1). The others are learned
    from."""
    progress_every_s: float = Field(1.0, gt=0)
    """The shortest time between two progress reports to the cloud, in seconds. The begin of a step is always
    reported."""
    retry_longest_s: float = Field(30.0, gt=0)
    """The longest pause between two attempts to reach the cloud, in seconds."""
    silence_s: float = Field(60.0, gt=0)
    """How long the stream of tasks may be silent, in seconds. Later it counts as dead and is opened again."""
    keep_cycles: int = Field(2, ge=1)
    """The work files of this many recent cycles stay on disk."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Events below this level are not logged."""

    @model_validator(mode="after")
    def _has_labels_to_measure_by(self) -> Self:
        if self.external_validation != "never" and not self.labelled:
            raise ValueError("external_validation measures by the site's labels, and labelled is false: leave one out")
        return self

    @model_validator(mode="after")
    def _windows_are_possible(self) -> Self:
        for text in self.update_windows:
            Window.parse(text)
        if self.update_windows and not self.time_zone:
            raise ValueError("update_windows are in local time: name the time_zone, such as Europe/Berlin")
        try:
            ZoneInfo(self.time_zone or "UTC")
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(
                f"{self.time_zone!r} is no time zone of this machine: write for example Europe/Berlin"
            ) from None
        return self

    @field_validator("approval", mode="before")
    @classmethod
    def _auto_is_the_old_name(cls, approval: object) -> object:
        return "bounds" if approval == "auto" else approval
