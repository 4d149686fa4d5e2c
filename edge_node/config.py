"""The configuration of an edge node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from diredi.config import ServiceConfig
from diredi.errors import InvalidInput
from edge_node.outputs.addresses import Broker, check_webhook, web_address
from edge_node.runtimes import check_runtime
from edge_node.sources import check_source

CameraName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Name = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class EdgeConfig(ServiceConfig):
    """Every field as a flag, as DIREDI_EDGE_<FIELD> in the environment, or in the YAML file named by `--config`."""

    model_config = SettingsConfigDict(env_prefix="DIREDI_EDGE_")
    program: ClassVar[str] = "python -m edge_node"

    device: str = Name
    """The name of this device. Its certificate must have the same name."""
    site: str = Name
    """The site that this device belongs to."""
    cloud: str
    """The host:port of the cloud, which this node connects to."""
    user_domain: str | None = None
    """The host:port of the site's user domain, which receives frames that are worth a label, and says which releases
    the site holds and when this node may change over. None sends no frame anywhere, and installs what comes."""
    identity: Path
    """The folder with ca.pem, cert.pem and key.pem, as `diredi pki issue` makes it."""
    token: Path | None = None
    """The file with an enrolment token of `diredi device enroll`. Where `identity` has no certificate yet, this service
    makes a key there, gets a certificate as soon as the cloud answers, and deletes the file."""
    state_dir: Path
    """The folder for releases and the state of the updater. It must survive restarts."""
    second_repository: Path | None = None
    """The folder of a second repository of The Update Framework, which somebody else than the cloud keeps. A release is
    installed only if its metadata list the release's file, too, as `<sha256 in hex>.onnx`. None requires none."""
    second_root: Path | None = None
    """The file with the root of that repository, as its keeper has given it out."""
    listen: str = "127.0.0.1:0"
    """The host:port of EdgeService. With port 0 the system chooses a free port."""
    source: str | None = None
    """Where frames come from: `rtsp://HOST/PATH`, `http://HOST/PATH`, `/dev/video0`, `video:PATH`, `folder:PATH` or
    `scenes:SITE`, then settings such as `#rotate=180`."""
    cameras: dict[CameraName, str] = Field(default_factory=dict, max_length=64)
    """In place of `source`: several cameras that share the model, by name. Each is written as `source` is."""
    credentials: Path | None = None
    """A file in netrc format with the user names and passwords of cameras. It is read at each connection."""
    reconnect_s: float = Field(1.0, gt=0)
    """The pause before a source or a broker that is away is tried again, in seconds. It doubles each time, up to 30
    times its length. One that refuses the password is left alone for ten times as long."""
    repeat: bool = True
    """Whether a folder or a video file starts again at its end."""
    confidence: float = Field(0.25, gt=0, le=1)
    """Detections with a lower confidence (0 to 1) are not reported."""
    frames_per_second: float = Field(5.0, gt=0, le=1000)
    """The most frames of a camera that are looked at in a second. A slow machine looks at fewer, always the newest."""
    threads: int = Field(1, ge=0, le=64)
    """How many threads a runtime uses, never more than the cores that this process may use. 0 takes one for each of
    these."""
    runtime: str = "auto"
    """What runs the network: `onnxruntime`, `openvino`, or one of these with a device, as `openvino:GPU` and
    `onnxruntime:CUDA`. `auto` measures those that are installed on frames of this node, and takes the fastest that
    finds what ONNX Runtime finds."""
    measure_s: float = Field(3.0, gt=0, le=60)
    """How long each runtime is measured, in seconds."""
    trial_s: float = Field(120.0, ge=0)
    """How long a new release may take to load and to detect twice, in seconds, in a process of its own where it can do
    no harm. 0 tries it in the node itself."""
    trial_memory_mib: int = Field(2048, ge=256)
    """How much address space that process may use, in MiB."""
    shadow_s: float = Field(0.0, ge=0)
    """How long a new release detects beside the one that runs before it takes over, in seconds, on some of the frames.
    Frames on which the two disagree are worth a label. 0 lets it take over at once."""
    shadow_share: float = Field(0.2, gt=0, le=1)
    """On which share of the frames it does (0 to 1)."""
    shadow_max_differing: float = Field(0.5, gt=0, le=1)
    """The new release is refused if a larger share than this of the confident boxes differs, where both know the class
    (0 to 1)."""
    heartbeat_s: float = Field(15.0, gt=0)
    """The time between two reports to the cloud that this device is running, in seconds."""
    silence_s: float = Field(60.0, gt=0)
    """How long the stream of releases may be silent, in seconds. Later it counts as dead and is opened again."""
    retry_failed_s: float = Field(60.0, gt=0)
    """The pause before an installation is tried again that failed for a passing reason, in seconds. It doubles each
    time."""
    overlay: bool = False
    """Whether to run each release in the form that the user domain has made for it: with batch-norm statistics of the
    site, with 8 bits, or both. The cloud is not told."""
    quantised: Literal["faster", "always", "never"] = "faster"
    """When to run an overlay that has 8 bits: if it is faster on this board and finds about the same there, always, or
    never."""
    overlay_every_s: float = Field(30.0, gt=0)
    """The time between two questions to the user domain for an overlay, in seconds."""
    hand_samples_per_minute: float = Field(0.0, ge=0, le=600)
    """How many frames a minute may go to the user domain that are worth a label: uncertain ones, with an object that
    comes and goes, with a class that is rare, and some at random, and of each scene one. 0 sends none."""
    samples_random_share: float = Field(0.1, ge=0, le=1)
    """Which share of these is drawn at random (0 to 1)."""
    drift: bool = True
    """Whether to notice that a camera no longer sees what it used to see, or that the release no longer finds it. The
    heartbeat names what has changed, such as `light` or `scene`, and nothing else."""
    mqtt: str | None = None
    """The MQTT broker that events and states are published to: `mqtts://HOST:PORT`, or `mqtt://` without TLS.
    `{NAME}` in it stands for a variable of the environment, as in `mqtts://camera:{MQTT_PASSWORD}@10.0.0.5`. None
    publishes nothing."""
    mqtt_version: Annotated[Literal["3.1.1", "5"], BeforeValidator(str)] = "3.1.1"
    """The version of MQTT that the broker speaks."""
    mqtt_ca: Path | None = None
    """The file with the certificate that has signed the broker's. None: the authorities of this system."""
    mqtt_topic: str = Field("diredi", min_length=1, max_length=128, pattern=r"^[^/+#$\s]([^+#\s]*[^/+#\s])?$")
    """What all topics begin with; then come the names of site and device."""
    mqtt_discovery: str = Field("homeassistant", max_length=128, pattern=r"^[^+#\s]*$")
    """The topic below which Home Assistant looks for devices. Empty announces nothing there."""
    mqtt_detections: bool = False
    """Whether the detections of each frame are published, too."""
    mqtt_picture_s: float = Field(0.0, ge=0)
    """The time between two pictures of a camera that are published, in seconds. 0 publishes no picture."""
    event_queue: int = Field(1000, ge=1, le=100_000)
    """How many events wait for a broker or a webhook that is away. Beyond that the oldest are dropped and counted."""
    webhook: str | None = None
    """The address that each event is sent to by HTTP POST, as JSON: `https://HOST/PATH`. `{NAME}` in it stands for a
    variable of the environment. None sends nothing."""
    keep: Path | None = None
    """The folder in which the picture and the event of each object are kept. Whoever may read it sees them. None keeps
    nothing."""
    keep_mib: int = Field(500, ge=1)
    """How much the files in that folder may take, in MiB. The oldest are deleted for new ones."""
    http: str | None = None
    """The port, or host:port, of a small web server with live pictures, events, health and metrics. A port alone is one
    of 127.0.0.1. There is no password and no TLS: whoever reaches it sees what the cameras see. None: no web server."""
    uncertain_below: float = Field(0.5, gt=0, le=1)
    """A frame is uncertain if a detection in it has a lower confidence (0 to 1) than this."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Events below this level are not logged."""

    @model_validator(mode="after")
    def _sources_are_possible(self) -> Self:
        if (self.source is None) == (not self.cameras):
            raise ValueError("set source, or cameras for several, and not both")
        if (self.second_repository is None) != (self.second_root is None):
            raise ValueError("set second_repository and second_root, which belongs to it, or neither")
        if self.second_root is not None and not self.second_root.is_file():
            raise ValueError(f"second_root {self.second_root} does not exist: copy the root of the second repository")
        try:
            check_runtime(self.runtime)
            for reference in self.references.values():
                check_source(reference)
            if self.mqtt is not None:
                self.broker.check()
            if self.webhook is not None:
                check_webhook(self.webhook)
            if self.http is not None:
                web_address(self.http)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def broker(self) -> Broker:
        """Where `mqtt` is and how it is spoken to."""
        return Broker(self.mqtt or "", self.mqtt_version, self.mqtt_ca, self.credentials)

    @property
    def references(self) -> dict[str, str]:
        """The reference of each camera's source by the camera's name; an only one has the name of the device."""
        return self.cameras or {self.device: self.source or ""}
