"""The configuration of an edge node."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from diredi.config import ServiceConfig

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
    """The host:port of the site's user domain, which receives uncertain frames. None sends no frame anywhere."""
    identity: Path
    """The folder with ca.pem, cert.pem and key.pem, as `diredi pki issue` makes it."""
    state_dir: Path
    """The folder for releases and the state of the updater. It must survive restarts."""
    listen: str = "127.0.0.1:0"
    """The host:port of EdgeService. With port 0 the system chooses a free port."""
    source: str
    """Where frames come from: `camera:0`, `video:PATH`, `folder:PATH` or `scenes:SITE`."""
    repeat: bool = True
    """Whether a folder or a video file starts again at its end."""
    confidence: float = Field(0.25, gt=0, le=1)
    """Detections with a lower confidence (0 to 1) are not reported."""
    frames_per_second: float = Field(5.0, gt=0, le=1000)
    """The most frames that are looked at in a second. A slow machine looks at fewer."""
    threads: int = Field(1, ge=1, le=64)
    """How many threads ONNX Runtime uses."""
    heartbeat_s: float = Field(15.0, gt=0)
    """The time between two reports to the cloud that this device is running, in seconds."""
    silence_s: float = Field(60.0, gt=0)
    """How long the stream of releases may be silent, in seconds. Later it counts as dead and is opened again."""
    retry_failed_s: float = Field(60.0, gt=0)
    """The pause before an installation is tried again that failed for a passing reason, in seconds. It doubles each
    time."""
    hand_samples_per_minute: float = Field(0.0, ge=0, le=600)
    """How many uncertain frames a minute may go to the user domain. 0 sends none."""
    uncertain_below: float = Field(0.5, gt=0, le=1)
    """A frame is uncertain if a detection in it has a lower confidence (0 to 1) than this."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Events below this level are not logged."""
