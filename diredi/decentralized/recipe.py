"""How peers learn, as values without torch: what a study's cells and a peer's configuration hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from diredi.config import Config

MeasureName = Literal["ce", "kl", "js", "sed", "td", "msed"]


class NetworkRecipe(Config):
    backbone: str = "cnn"
    """By its name in `diredi.decentralized.backbones.BACKBONES`."""
    auxiliary: int = Field(default=1, ge=0)
    """Auxiliary heads, beside the main one."""
    head: Literal["linear", "mlp"] = "linear"
    """An auxiliary head: one layer, or the three (features, features, features / 2, classes) of Molo et al.'s code."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of what the backbone computes; weights and heads are fp32 in either. bf16 halves the time of large backbones."""


class DistillationRecipe(Config):
    """What an auxiliary head's loss is: alpha * labels + (1 - alpha) * distillation."""

    measure: MeasureName = "td"
    scheme: Literal["pairwise", "holistic"] = "holistic"
    """The sum of the distances to each neighbour, or the distance to the neighbours' average. With "msed" and
    "holistic": the distance of all to each other, which needs no average."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the labels; 1 asks no neighbour anything."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits of both sides."""
    temperature_squared: bool = False
    """Multiplies the distillation by the square of the temperature (Hinton et al., 2015), which keeps its gradient's
    size."""
    mode: Literal["paper", "reference_code", "matched"] = "paper"
    """`paper`: probabilities are averaged, losses are means over the batch, neighbours answer in eval mode.
    `reference_code`: as the authors' program does it: logits are averaged, distillation is summed over the batch while
    the label loss is a mean, neighbours answer in train mode, the temperature is never squared. `matched`: as `paper`,
    and the gradient of the distillation by the logits is made as long as that of the label loss, for measures differ
    much in the length of their gradients and little in their direction (at high temperature KL : TD : JS : SED as 4 :
    2 : 1 : 1)."""


class TrainingRecipe(Config):
    """Stochastic gradient descent with momentum, its rate falling to 0 along a cosine."""

    epochs: float = Field(default=5, gt=0)
    batch: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)


class MultiHeadRecipe(Config):
    """Multi-headed distillation on public images. Where the paper's numbers could not be read, ours are said to be
    so."""

    auxiliary: int = Field(default=3, ge=1)
    """Heads of the chain: head k + 1 learns from the neighbours' head k, the first from their main heads."""
    auxiliary_weight: float = Field(default=3.0, ge=0)
    """Of each auxiliary head's loss, where the private labels' has 1."""
    embedding_weight: float = Field(default=1.0, ge=0)
    """Of the distance between normalised embeddings."""
    confidence: Literal["all", "most_confident"] = "most_confident"
    """A head learns from all neighbours alike, or for each sample from the one that is surest, which may be the peer's
    own head of the level before."""
    measure: MeasureName = "ce"
    temperature: float = Field(default=1.0, gt=0)
    public_batch: int = Field(default=64, ge=2)
