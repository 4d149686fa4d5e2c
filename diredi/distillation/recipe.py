"""How to train, as a value without torch: what a service's configuration and a gap's manifest hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from diredi.config import Config

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Of one thing among others."""


class Augment(Config):
    """How much a training image may differ from the one on disk. All 0: not at all."""

    mirror: float = Field(default=0.5, ge=0, le=1)
    """Chance of a left-right flip."""
    scale: float = Field(default=0.3, ge=0, lt=1)
    """Zoom is drawn from 1 - scale to 1 + scale."""
    shift: float = Field(default=0.1, ge=0, le=0.5)
    """Largest shift, as a share of the image."""
    mosaic: float = Field(default=0.0, ge=0, le=1)
    """Chance that four images share the frame."""
    brightness: float = Field(default=0.25, ge=0, lt=1)
    contrast: float = Field(default=0.25, ge=0, lt=1)
    saturation: float = Field(default=0.3, ge=0, le=1)
    noise: float = Field(default=0.02, ge=0, le=1)
    """Largest standard deviation of Gaussian noise, as a share of white."""


class TrainRecipe(Config):
    """One run of `diredi.distillation.trainer.train`. Equal recipes on equal data give equal weights."""

    epochs: float = Field(default=12, gt=0)
    steps: int | None = Field(default=None, ge=1)
    """Number of steps whatever the size of the data; None: as `epochs` says."""
    batch: int = Field(default=16, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    final_learning_rate: float = Field(default=0.02, ge=0, le=1)
    """Where the cosine ends, as a share of `learning_rate`."""
    warmup: float = Field(default=0.08, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float = Field(default=5e-4, ge=0)
    gradient_clip: float = Field(default=10.0, gt=0)
    """Largest norm of the gradient of one step."""
    label_weight: float = Field(default=1.0, ge=0)
    """Weight of the student's own detection loss; 0 learns from the teacher alone, and no label is looked at."""
    losses: dict[str, Weight] = Field(default_factory=lambda: {"class_scores": 1.0, "boxes": 1.0})
    """Weight of each distillation loss by its name in `diredi.distillation.losses.LOSSES`; used only with a teacher."""
    teacher_confidence: float = Field(default=0.0, ge=0, lt=1)
    """The teacher teaches only where its best score is at least this. 0: everywhere."""
    teaches: Literal["everything", "unlabelled"] = "everything"
    """With "unlabelled" the teacher is silent about classes that an image's labels speak of. Heeded by the losses that
    compare scores or boxes and by pseudo_labels; where it leaves nothing to teach, the teacher is not asked."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits that the losses of `diredi.distillation.dissimilarity` compare: above 1 softens the scores."""
    teacher_sees: Literal["augmented", "clean"] = "augmented"
    """What the teacher is shown of an image; "clean" leaves out the change of colours and the noise."""
    augment: Augment = Augment()
    batch_norm: Literal["learn", "frozen"] = "learn"
    """Frozen keeps the running statistics that the student came with."""
    train_only: tuple[Literal["backbone", "neck", "head"], ...] = ()
    """Sections whose weights may change; empty: all."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; weights are fp32 in either case."""
    cache_mib: int = Field(default=1024, ge=0)
    """Images are kept in memory, at network size, up to this; larger sets are read from disk in every epoch."""
    seed: int = 0
