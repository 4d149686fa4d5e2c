"""The cloud's configuration: `python -m cloud_server --help` lists it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from diredi.config import ServiceConfig
from diredi.knowledge.recipe import BootstrapRecipe, CycleRecipe


class CloudConfig(ServiceConfig):
    model_config = SettingsConfigDict(
        env_prefix="DIREDI_CLOUD_", frozen=True, extra="forbid", env_nested_delimiter="__"
    )
    program: ClassVar[str] = "cloud_server"

    listen: str = "127.0.0.1:7070"
    """host:port to answer on; port 0 lets the system choose."""
    state_dir: Path = Path("cloud-state")
    """Database, blobs and jobs."""
    database_url: SecretStr = SecretStr("")
    """"sqlite:///path" or "postgresql://user@host/name"; empty: SQLite in `state_dir`. Never shown, as it may
    hold a password."""
    identity: Path = Path("pki/cloud")
    """Folder with ca.pem, cert.pem and key.pem, as `diredi pki issue` makes it."""
    log_level: str = "INFO"

    # The first models: an architecture to train, or the path of weights. No teacher: the tutor learns from labels.
    presumed: str = "scenes:presumed"
    """What the manufacturer trains on: "scenes:presumed", or the path of a data.yaml."""
    presumed_train: int | None = Field(None, ge=1)
    """Number of generated training images; only for scenes. None: the generator's own number."""
    presumed_val: int | None = Field(None, ge=1)
    pool: str = ""
    """A data.yaml of public images without labels, for cycles whose recipe teaches on them (redistil_images:
    pool, chosen, pasted)."""
    teacher: str = ""
    tutor: str = "yolo11n"
    student: str = "yolo11-w0.125"
    image_size: int = Field(160, ge=32, le=2048, multiple_of=32)
    """Pixels, square; the input of every detector."""
    bootstrap: BootstrapRecipe = Field(default_factory=lambda: BootstrapRecipe.of(None))
    seed: int = 0
    """Of the generated scenes and, unless their recipes say otherwise, of every training."""

    # Cycles.
    recipe: CycleRecipe = Field(default_factory=lambda: CycleRecipe.of(None))
    """What a cycle does unless its request says otherwise."""
    max_harm: float = Field(0.01, ge=0, le=1)
    """The gate: how much mAP50 (0..1) on presumed held-out images an update may cost."""
    canary_devices: int = Field(1, ge=0)
    """How many devices of each of the cycle's sites run a release before all others; 0: none, the sites' validation
    decides."""
    canary_deadline_s: float = Field(3600, gt=0)
    """A canary that has not reported the release by then counts as failed."""
    progress_deadline_s: float = Field(7 * 86_400, gt=0)
    """A cycle that made no progress for so long ends: FAILED, or ROLLED_BACK once it had a release. The one deadline of
    every state; a person who approves a cycle has this long too."""
    straggler_deadline_s: float = Field(86_400, gt=0)
    """A site that makes no progress for so long, while another site of the same cycle has uploaded its gap and waits,
    drops out; the cycle goes on without it."""
    job_tries: int = Field(3, ge=1)
    """How often a job is started whose process died."""
    max_blob_mib: int = Field(2048, ge=1)
    """The largest upload that is taken."""

    @property
    def cycle_recipe(self) -> CycleRecipe:
        """`recipe`, with what the configuration says once for all of the cloud."""
        shared = {"max_harm": self.max_harm, "seed": self.seed}
        return self.recipe.model_copy(update={k: v for k, v in shared.items() if k not in self.recipe.model_fields_set})

    @property
    def bootstrap_recipe(self) -> BootstrapRecipe:
        if "seed" in self.bootstrap.model_fields_set:
            return self.bootstrap
        return self.bootstrap.model_copy(update={"seed": self.seed})
