"""The loss of a peer's auxiliary head: labels and the outputs of its neighbours.

Molo, Vadicamo, Carlini, Gennaro, Connor, "Information Dissimilarity Measures in Decentralized Knowledge Distillation",
SISAP 2024: alpha * L_stu + (1 - alpha) * L_KD. L_KD is either the sum of the dissimilarities to each neighbour
(pairwise, "SUM") or the dissimilarity to the average of the neighbours' outputs (holistic, "AVG").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diredi.decentralized.recipe import DistillationRecipe
from diredi.distillation.dissimilarity import MEASURES, msed


def loss(logits: Tensor, labels: Tensor, neighbours: Tensor | None, recipe: DistillationRecipe) -> Tensor:
    """Compute the loss of an auxiliary head for a batch, alpha * L_stu + (1 - alpha) * L_KD.

    Args:
        logits: The head's logits, fp32 [n, classes].
        labels: int64 [n].
        neighbours: The neighbours' logits without gradient, fp32 [neighbours, n, classes]. With None or no neighbours
            the loss is that of the labels alone, whatever alpha is.
        recipe: Dissimilarity, scheme, alpha and temperature.

    Returns:
        A scalar.
    """
    label_loss = F.cross_entropy(logits, labels)
    if neighbours is None or len(neighbours) == 0 or recipe.alpha == 1:
        return label_loss
    distillation = distance(logits, neighbours, recipe)
    if recipe.mode == "matched":
        distillation = distillation * _gradient_ratio(label_loss, distillation, logits)
    return recipe.alpha * label_loss + (1 - recipe.alpha) * distillation


def distance(logits: Tensor, neighbours: Tensor, recipe: DistillationRecipe) -> Tensor:
    """Compute L_KD, the dissimilarity between a peer and its neighbours.

    Args:
        logits: The peer's logits, fp32 [n, classes].
        neighbours: The neighbours' logits, fp32 [neighbours, n, classes].
        recipe: Dissimilarity, scheme, mode and temperature; alpha is ignored.

    Returns:
        A scalar: the mean over the batch, or the sum under mode "reference_code".
    """
    measure, temperature = MEASURES[recipe.measure], recipe.temperature
    own, theirs = (logits / temperature).softmax(-1), (neighbours / temperature).softmax(-1)
    per_sample: Tensor
    if recipe.scheme == "pairwise":
        per_sample = measure(own.expand_as(theirs), theirs).sum(0)
    elif recipe.measure == "msed":
        per_sample = msed(own, *theirs)
    elif recipe.mode == "reference_code":
        per_sample = measure(own, (neighbours.mean(0) / temperature).softmax(-1))
    else:
        per_sample = measure(own, theirs.mean(0))
    if recipe.mode == "reference_code":
        return per_sample.sum()
    return per_sample.mean() * (temperature**2 if recipe.temperature_squared else 1.0)


def _gradient_ratio(label_loss: Tensor, distillation: Tensor, logits: Tensor) -> Tensor:
    """Return the factor that makes both losses' gradients by the logits equally long."""
    wanted, actual = (
        torch.autograd.grad(each, logits, retain_graph=True)[0].norm() for each in (label_loss, distillation)
    )
    return torch.div(wanted, actual.clamp(min=1e-12))
