"""What a peer's auxiliary head learns from labels and from its neighbours.

Molo, Vadicamo, Carlini, Gennaro, Connor: "Information Dissimilarity Measures in Decentralized Knowledge Distillation",
SISAP 2024: alpha * L_stu + (1 - alpha) * L_KD, where L_KD is either the sum of the dissimilarities to each neighbour
(pairwise, "SUM") or the dissimilarity to the average of what the neighbours say (holistic, "AVG").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diredi.decentralized.recipe import DistillationRecipe
from diredi.distillation.dissimilarity import MEASURES, msed


def loss(logits: Tensor, labels: Tensor, neighbours: Tensor | None, recipe: DistillationRecipe) -> Tensor:
    """The whole loss of an auxiliary head for a batch, a scalar.

    `logits` fp32 [n, classes], `labels` int64 [n], `neighbours` fp32 [neighbours, n, classes], logits too, without
    gradient; None or none of them: labels alone, whatever alpha is.
    """
    taught = F.cross_entropy(logits, labels)
    if neighbours is None or len(neighbours) == 0 or recipe.alpha == 1:
        return taught
    far = distance(logits, neighbours, recipe)
    if recipe.mode == "matched":
        far = far * _match(taught, far, logits)
    return recipe.alpha * taught + (1 - recipe.alpha) * far


def distance(logits: Tensor, neighbours: Tensor, recipe: DistillationRecipe) -> Tensor:
    """How unlike the neighbours a peer is, a scalar: the mean over the batch, in `reference_code` the sum."""
    measure, heat = MEASURES[recipe.measure], recipe.temperature
    each: Tensor
    mine, theirs = (logits / heat).softmax(-1), (neighbours / heat).softmax(-1)
    if recipe.scheme == "pairwise":
        each = measure(mine.expand_as(theirs), theirs).sum(0)
    elif recipe.measure == "msed":
        each = msed(mine, *theirs)
    elif recipe.mode == "reference_code":
        each = measure(mine, (neighbours.mean(0) / heat).softmax(-1))
    else:
        each = measure(mine, theirs.mean(0))
    if recipe.mode == "reference_code":
        return each.sum()
    return each.mean() * (heat**2 if recipe.temperature_squared else 1.0)


def _match(taught: Tensor, far: Tensor, logits: Tensor) -> Tensor:
    """What makes the gradient of `far` by the logits as long as that of `taught`."""
    wanted, found = (torch.autograd.grad(one, logits, retain_graph=True)[0].norm() for one in (taught, far))
    return torch.div(wanted, found.clamp(min=1e-12))
