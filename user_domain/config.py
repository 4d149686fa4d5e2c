"""The configuration of a user domain."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from diredi.config import ServiceConfig


class UserDomainConfig(ServiceConfig):
    """Every field as a flag, as DIREDI_SITE_<FIELD> in the environment, or in the YAML file named by `--config`."""

    model_config = SettingsConfigDict(env_prefix="DIREDI_SITE_")
    program: ClassVar[str] = "user_domain"

    site: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of this site; its certificate must say the same."""
    cloud: str
    """host:port of the cloud, which this service dials."""
    identity: Path
    """Folder with ca.pem, cert.pem and key.pem."""
    state_dir: Path
    """Downloads, jobs, samples, the journal and the ledger of what left; survives restarts."""
    data: str
    """The private data set, read and never written: the path of a data.yaml, or "scenes:SITE" for built-in scenes."""
    scenes_train: int | None = Field(None, ge=1)
    """Images of built-in scenes to train on; the generator's default where none."""
    scenes_val: int | None = Field(None, ge=1)
    """Held-out images of built-in scenes; the generator's default where none."""
    seed: int = 0
    """Of the built-in scenes."""
    listen: str = "127.0.0.1:0"
    """host:port of LocalService, for the site's own edge nodes; port 0 takes a free one."""
    approval: Literal["auto", "ask"] = "auto"
    """Whether a cycle begins by itself, or only after `diredi cycle approve` with this site's certificate."""
    publish_style: bool = False
    """Whether the manifest of a gap also has the colour and blur statistics of the private images, from which the cloud
    makes its own images look like this site's. Figures of the whole set, of no single image."""
    max_samples: int = Field(10_000, ge=0)
    """How many frames from edge nodes are kept."""
    progress_every_s: float = Field(1.0, gt=0)
    """Progress is told to the cloud at most so often, and whenever a step begins."""
    retry_longest_s: float = Field(30.0, gt=0)
    """The longest pause between two tries while the cloud is away."""
    silence_s: float = Field(60.0, gt=0)
    """A task stream that says nothing for so long is dead and opened again."""
    keep_cycles: int = Field(2, ge=1)
    """Work files of so many last cycles stay on disk."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
