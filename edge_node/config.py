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
    program: ClassVar[str] = "edge_node"

    device: str = Name
    """Name of this device; its certificate must say the same."""
    site: str = Name
    """The site that it stands at."""
    cloud: str
    """host:port of the cloud, which this node dials."""
    user_domain: str | None = None
    """host:port of the site's user domain, for frames that it hands over; none by default."""
    identity: Path
    """Folder with ca.pem, cert.pem and key.pem."""
    state_dir: Path
    """Releases and the updater's state; survives restarts."""
    listen: str = "127.0.0.1:0"
    """host:port of EdgeService; port 0 takes a free one."""
    source: str
    """Where frames come from: "folder:PATH", "video:PATH", "camera:0", "scenes:SITE"."""
    repeat: bool = True
    """Whether a folder or a video file starts again at its end."""
    confidence: float = Field(0.25, gt=0, le=1)
    """Detections below it are not reported."""
    frames_per_second: float = Field(5.0, gt=0, le=1000)
    """Upper bound; a slower machine does fewer."""
    threads: int = Field(1, ge=1, le=64)
    """Threads of ONNX Runtime."""
    heartbeat_s: float = Field(15.0, gt=0)
    silence_s: float = Field(60.0, gt=0)
    """A release stream that says nothing for so long is dead and opened again."""
    retry_failed_s: float = Field(60.0, gt=0)
    """Wait before an installation that failed for a passing reason is tried again; doubles each time."""
    hand_samples_per_minute: float = Field(0.0, ge=0, le=600)
    """How many uncertain frames may go to the user domain; 0 for none."""
    uncertain_below: float = Field(0.5, gt=0, le=1)
    """A frame is uncertain when a detection in it is below this confidence."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
