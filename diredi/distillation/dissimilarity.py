"""How unlike two probability vectors are: the measures that distillation may use on what two detectors say.

Molo, Vadicamo, Carlini, Gennaro, Connor: "Information Dissimilarity Measures in Decentralized Knowledge Distillation",
SISAP 2024 (cross-entropy, Kullback-Leibler, Jensen-Shannon, structural entropic distance, triangular divergence), and
its follow-up in FGCS 176, 2025 (the multi-way form).

`p` is the student's and `q` the teacher's, of any float type and equal shape, each a distribution along the last axis;
the answer has one value for each pair, in fp32 at least. A probability of 0 is no trouble: logarithms are taken of no
less than `_floor`, below which the gradient is 0.

With respect to `p`, cross-entropy and Kullback-Leibler have one and the same gradient. Near equality all the others
are Kullback-Leibler made smaller: KL : TD : JS : SED as 4 : 2 : 1 : 1. So the choice decides most where the two differ
much, at low temperature; at a high one it only sets the pace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

Measure = Callable[[Tensor, Tensor], Tensor]


def ce(p: Tensor, q: Tensor) -> Tensor:
    """Cross-entropy, -sum q log p: at least the entropy of `q`, which it is at equality."""
    return -(_wide(q) * _log(p)).sum(-1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Kullback-Leibler divergence of `p` from `q`, sum q log(q / p): 0 at equality, without bound."""
    return (_wide(q) * (_log(q) - _log(p))).sum(-1)


def js(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence, half the KL of each to their mean: 0 at equality, at most log 2."""
    mean = (_wide(p) + _wide(q)) / 2
    return (kl(mean, p) + kl(mean, q)) / 2


def td(p: Tensor, q: Tensor) -> Tensor:
    """Triangular divergence, 1 - sum 2 p q / (p + q): 0 at equality, 1 where nothing is shared; the cheapest."""
    both = (_wide(p) + _wide(q)).clamp(min=_floor(p))
    return 1 - (2 * _wide(p) * _wide(q) / both).sum(-1)


def sed(p: Tensor, q: Tensor) -> Tensor:
    """Structural entropic distance, C((p + q) / 2) / sqrt(C(p) C(q)): 1 at equality, at most 2."""
    return 1 + msed(p, q)


def msed(*vectors: Tensor) -> Tensor:
    """Multi-way structural entropic distance of two vectors or more: 0 when all are equal, at most 1.

    (C(mean) / geometric mean of all C - 1) / (n - 1), where C(p) = exp(entropy of p) is the number of outcomes that a
    fair draw as uncertain as p would have.
    """
    wide = torch.stack([_wide(vector) for vector in vectors])
    excess = _entropy(wide.mean(0)) - torch.stack([_entropy(vector) for vector in vectors]).mean(0)
    return excess.expm1() / (len(vectors) - 1)


def kl_of_logits(p: Tensor, q: Tensor) -> Tensor:
    """`kl` of the two softmaxes along the last axis; exact however sure they are."""
    return F.kl_div(p.log_softmax(-1), q.log_softmax(-1), reduction="none", log_target=True).sum(-1)


MEASURES: Final[dict[str, Measure]] = {"ce": ce, "kl": kl, "js": js, "sed": sed, "td": td, "msed": msed}
"""Dissimilarities of two probability vectors by name; each takes the student's and the teacher's, [..., classes]."""


def _entropy(p: Tensor) -> Tensor:
    return -(_wide(p) * _log(p)).sum(-1)


def _log(p: Tensor) -> Tensor:
    return _wide(p).clamp(min=_floor(p)).log()


def _wide(p: Tensor) -> Tensor:
    return p if p.dtype == torch.float64 else p.float()


def _floor(p: Tensor) -> float:
    """Small, and yet 1 / floor, the steepest gradient of a logarithm, is a finite number of the vector's own type."""
    return max(1e-12, torch.finfo(p.dtype).tiny)
