from __future__ import annotations

import math

import pytest
import torch

from diredi.distillation.dissimilarity import MEASURES, ce, js, kl, msed, sed, td

DISTANCES = {"kl": kl, "js": js, "td": td, "sed - 1": lambda p, q: sed(p, q) - 1, "msed": msed}


def vectors(seed: int, rows: int = 200, length: int = 10, spread: float = 2.0, temperature: float = 1.0):
    """Logits, which take a gradient, and their distributions."""
    random = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, length, generator=random, dtype=torch.float64) * spread).requires_grad_()
    return logits, (logits / temperature).softmax(-1)


def gradient(measure, temperature: float = 1.0):
    """Of the student's logits, rows x length."""
    logits, p = vectors(0, temperature=temperature)
    _, q = vectors(1, temperature=temperature)
    return torch.autograd.grad(measure(p, q.detach()).sum(), logits)[0]


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_measures_agree_with_their_formulas(name):
    _, p = vectors(0)
    _, q = vectors(1)
    p, q = p.detach(), q.detach()

    def complexity(v):
        return torch.exp(-(v * v.log()).sum(-1))

    mean = (p + q) / 2
    structural = complexity(mean) / (complexity(p) * complexity(q)).sqrt()
    formulas = {
        "ce": -(q * p.log()).sum(-1),
        "kl": (q * (q / p).log()).sum(-1),
        "js": ((p * (p / mean).log()).sum(-1) + (q * (q / mean).log()).sum(-1)) / 2,
        "sed": structural,
        "td": 1 - (2 * p * q / (p + q)).sum(-1),
        "msed": structural - 1,
    }
    assert torch.allclose(MEASURES[name](p, q), formulas[name], rtol=1e-10)


def test_gradients_of_cross_entropy_and_kullback_leibler_are_one_and_the_same():
    assert torch.allclose(gradient(ce), gradient(kl), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_a_distance_is_zero_at_equality_and_positive_elsewhere(name):
    _, p = vectors(0)
    _, q = vectors(1)
    assert torch.allclose(DISTANCES[name](p, p), torch.zeros(200, dtype=torch.float64), atol=1e-12)
    assert (DISTANCES[name](p, q) > 0).all()


@pytest.mark.parametrize(("name", "most"), [("td", 1.0), ("js", math.log(2)), ("sed - 1", 1.0), ("msed", 1.0)])
def test_bounds_are_reached_where_nothing_is_shared(name, most):
    p, q = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.0, 0.5, 0.5, 0]])
    assert DISTANCES[name](p, q).item() == pytest.approx(most)
    spread = [vectors(seed, spread=8.0)[1] for seed in (0, 1)]
    assert (DISTANCES[name](*spread) <= most + 1e-12).all()


def test_structural_distance_of_many_needs_no_order_and_is_one_for_strangers():
    several = [vectors(seed)[1] for seed in range(4)]
    assert torch.allclose(msed(*several), msed(*reversed(several)))
    assert (msed(*several) > 0).all()
    assert msed(several[0], several[0], several[0]).abs().max() < 1e-12
    assert msed(*torch.eye(5)).item() == pytest.approx(1)


def test_at_a_high_temperature_all_measures_pull_the_same_way_and_differ_in_size_alone():
    reference = gradient(kl, temperature=100.0)
    for measure, ratio in ((td, 2), (js, 4), (sed, 4), (msed, 4)):
        found = gradient(measure, temperature=100.0)
        assert torch.cosine_similarity(found, reference, dim=-1).min() > 0.999
        assert (reference.norm() / found.norm()).item() == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(MEASURES))
def test_zeros_and_half_precision_leave_values_and_gradients_finite(name, dtype):
    rare = torch.finfo(dtype).smallest_normal * torch.tensor([0.01, 0.5, 1, 2], dtype=torch.float64)
    edges = [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], *([1 - x, x, 0] for x in rare.tolist())]
    p, q = (torch.tensor(edges, dtype=dtype) for _ in range(2))
    p, q = p.repeat_interleave(len(edges), 0).requires_grad_(), q.repeat(len(edges), 1)
    value = MEASURES[name](p, q)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(MEASURES))
def test_half_precision_gives_what_full_precision_would(name, dtype):
    p, q = (vectors(seed, spread=1.0)[1].detach().to(dtype) for seed in (0, 1))
    assert torch.allclose(MEASURES[name](p, q), MEASURES[name](p.double(), q.double()).float(), rtol=1e-3, atol=1e-3)
