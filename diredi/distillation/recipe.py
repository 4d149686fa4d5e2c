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
    """The probability of a left-right flip."""
    scale: float = Field(default=0.3, ge=0, lt=1)
    """The zoom is drawn from 1 - scale to 1 + scale."""
    shift: float = Field(default=0.1, ge=0, le=0.5)
    """The largest shift, as a share of the image."""
    mosaic: float = Field(default=0.0, ge=0, le=1)
    """The probability that four images share the frame."""
    brightness: float = Field(default=0.25, ge=0, lt=1)
    """The largest change of brightness, as a share."""
    contrast: float = Field(default=0.25, ge=0, lt=1)
    """The largest change of contrast, as a share."""
    saturation: float = Field(default=0.3, ge=0, le=1)
    """The largest change of saturation, as a share."""
    noise: float = Field(default=0.02, ge=0, le=1)
    """The largest standard deviation of Gaussian noise, as a share of white."""


class TrainRecipe(Config):
    """One run of `diredi.distillation.trainer.train`. Equal recipes on equal data give equal weights."""

    epochs: float = Field(default=12, gt=0)
    """How often the training goes through all images."""
    steps: int | None = Field(default=None, ge=1)
    """The number of optimizer steps, whatever the size of the data. None takes as many as `epochs` needs."""
    max_seconds: float | None = Field(default=None, gt=0)
    """The most that the training may take, but for a step or two. Where steps turn out to be too slow for that, fewer
    are made, and the learning rate comes down over those that are left. None sets no limit."""
    batch: int = Field(default=16, ge=1)
    """Images in a step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The optimizer."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """The highest learning rate, at the end of the warm-up."""
    final_learning_rate: float = Field(default=0.02, ge=0, le=1)
    """The last learning rate of the cosine schedule, as a share of `learning_rate`."""
    warmup: float = Field(default=0.08, ge=0, lt=1)
    """The share of the steps in which the learning rate rises from 0."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """The weight decay of the optimizer."""
    gradient_clip: float = Field(default=10.0, gt=0)
    """The largest norm of the gradient of one step."""
    label_weight: float = Field(default=1.0, ge=0)
    """The weight of the student's own detection loss. With 0 it learns from the teacher alone, and labels are not
    used."""
    losses: dict[str, Weight] = Field(default_factory=lambda: {"class_scores": 1.0, "boxes": 1.0})
    """The weight of each distillation loss by its name in `diredi.distillation.losses.LOSSES`. They are used only where
    there is a teacher."""
    teacher_confidence: float = Field(default=0.0, ge=0, lt=1)
    """The teacher teaches only where its best score is at least this. 0 means everywhere."""
    teaches: Literal["everything", "unlabelled"] = "everything"
    """With `unlabelled`, the teacher says nothing about classes for which an image has labels. The losses that compare
    scores or boxes and `pseudo_labels` follow this. Where nothing is left to teach, the teacher is not run."""
    temperature: float = Field(default=1.0, gt=0)
    """The losses of `diredi.distillation.dissimilarity` divide logits by it. Above 1 it softens the scores."""
    teacher_sees: Literal["augmented", "clean"] = "augmented"
    """What the teacher sees of an image. `clean` leaves out the change of colours and the noise."""
    augment: Augment = Augment()
    """How images are varied in training."""
    batch_norm: Literal["learn", "frozen"] = "learn"
    """`frozen` keeps the running statistics of batch norm that the student started with."""
    train_only: tuple[Literal["backbone", "neck", "head"], ...] = ()
    """The sections whose weights may change. Empty means all."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """The arithmetic of the forward pass; weights are fp32 in any case. `auto` takes bf16 where the device computes it
    faster: AVX-512 BF16, AMX, or CUDA from Ampere on. A small detector that starts from nothing may learn less in
    bf16; one that has learned much does not."""
    cache_mib: int = Field(default=1024, ge=0)
    """Images are kept in memory at the size of the network, up to this many MiB. Larger sets are read from disk in
    every epoch."""
    seed: int = 0
    """The seed of new weights, the order of images and their variation."""
