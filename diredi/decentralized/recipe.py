"""The recipes of peers, as values without torch: used by studies and by the configuration of a peer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from diredi.config import Config

MeasureName = Literal["ce", "kl", "js", "sed", "td", "msed"]


class NetworkRecipe(Config):
    """Choose the network of a peer."""

    backbone: str = "cnn"
    """By its name in `diredi.decentralized.backbones.BACKBONES`."""
    auxiliary: int = Field(default=1, ge=0)
    """Auxiliary heads, beside the main one."""
    head: Literal["linear", "mlp"] = "linear"
    """An auxiliary head: one layer, or the three (features, features, features / 2, classes) of Molo et al.'s code."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of what the backbone computes; weights and heads are fp32 in either. bf16 halves the time of large backbones."""


class DistillationRecipe(Config):
    """Choose the loss of an auxiliary head: alpha * labels + (1 - alpha) * distillation."""

    measure: MeasureName = "td"
    """The dissimilarity, by its name in `diredi.distillation.dissimilarity.MEASURES`."""
    scheme: Literal["pairwise", "holistic"] = "holistic"
    """pairwise: the sum of the dissimilarities to each neighbour. holistic: the dissimilarity to the neighbours'
    average, or with "msed" that of all peers to each other, which needs no average."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the labels. With 1 no neighbour is asked."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits of both sides."""
    temperature_squared: bool = False
    """Multiply the distillation by the square of the temperature (Hinton et al., 2015), which keeps the size of its
    gradient."""
    mode: Literal["paper", "reference_code", "matched"] = "paper"
    """`paper`: probabilities are averaged, losses are means over the batch, neighbours answer in eval mode.
    `reference_code`: as in the authors' program, logits are averaged, distillation is summed over the batch while the
    label loss is a mean, neighbours answer in train mode, and the temperature is never squared. `matched`: as `paper`,
    with the gradient of the distillation by the logits scaled to the length of that of the label loss, because the
    dissimilarities differ much in the length of their gradients and little in their direction (at high temperature KL :
    TD : JS : SED as 4 : 2 : 1 : 1)."""


class TrainingRecipe(Config):
    """Choose epochs, batch size and optimiser: SGD with momentum and a learning rate that falls to 0 along a cosine."""

    epochs: float = Field(default=5, gt=0)
    batch: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)


class MultiHeadRecipe(Config):
    """Choose the loss of multi-headed distillation on public images.

    The defaults are ours, for we had no access to the paper's constants.
    """

    auxiliary: int = Field(default=3, ge=1)
    """Heads of the chain. Head k + 1 learns from the neighbours' head k, the first from their main heads."""
    auxiliary_weight: float = Field(default=3.0, ge=0)
    """Weight of each auxiliary head's loss; that of the private labels is 1."""
    embedding_weight: float = Field(default=1.0, ge=0)
    """Weight of the distance between normalised embeddings."""
    confidence: Literal["all", "most_confident"] = "most_confident"
    """all: a head learns from all neighbours alike. most_confident: for each sample from the most confident one, which
    may be the peer's own head of the level before."""
    measure: MeasureName = "ce"
    temperature: float = Field(default=1.0, gt=0)
    public_batch: int = Field(default=64, ge=2)
