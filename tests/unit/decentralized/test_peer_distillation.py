"""What an auxiliary head's loss is, in each of its forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diredi.decentralized import distillation
from diredi.decentralized.recipe import DistillationRecipe
from diredi.distillation.dissimilarity import MEASURES

SCHEMES = ("pairwise", "holistic")


@pytest.fixture
def mine() -> Tensor:
    return (2 * torch.randn(12, 5, generator=torch.Generator().manual_seed(1))).requires_grad_()


@pytest.fixture
def theirs() -> Tensor:
    return 2 * torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(12) % 5


def recipe(**options: object) -> DistillationRecipe:
    return DistillationRecipe.model_validate(options)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("measure", sorted(MEASURES))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_neighbour_makes_both_schemes_the_measure_itself(
    measure: str, scheme: str, mine: Tensor, theirs: Tensor
) -> None:
    found = distillation.distance(mine, theirs[:1], recipe(measure=measure, scheme=scheme))
    wanted = MEASURES[measure](mine.softmax(-1), theirs[0].softmax(-1)).mean()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("measure", ["kl", "js", "td"])
def test_pairwise_sums_and_holistic_averages_what_neighbours_say(measure: str, mine: Tensor, theirs: Tensor) -> None:
    f, p, q = MEASURES[measure], mine.softmax(-1), theirs.softmax(-1)
    pairwise = distillation.distance(mine, theirs, recipe(measure=measure, scheme="pairwise"))
    holistic = distillation.distance(mine, theirs, recipe(measure=measure, scheme="holistic"))
    torch.testing.assert_close(pairwise, sum((f(p, one).mean() for one in q), torch.zeros(())))
    torch.testing.assert_close(holistic, f(p, q.mean(0)).mean())


def test_multi_way_sed_needs_no_average_and_is_0_when_all_agree(mine: Tensor, theirs: Tensor) -> None:
    together = recipe(measure="msed", scheme="holistic")
    agreed = mine.detach().expand(3, -1, -1)
    assert distillation.distance(mine, agreed, together).item() == pytest.approx(0, abs=1e-6)
    found = distillation.distance(mine, theirs, together)
    torch.testing.assert_close(found, MEASURES["msed"](mine.softmax(-1), *theirs.softmax(-1)).mean())


def test_reference_code_averages_logits_sums_over_the_batch_and_leaves_the_temperature_alone(
    mine: Tensor, theirs: Tensor
) -> None:
    options = {"measure": "kl", "scheme": "holistic", "temperature": 3.0, "temperature_squared": True}
    found = distillation.distance(mine, theirs, recipe(**options, mode="reference_code"))
    q = (theirs.mean(0) / 3).softmax(-1)
    torch.testing.assert_close(found, F.kl_div((mine / 3).log_softmax(-1), q, reduction="sum"), rtol=1e-4, atol=1e-5)
    paper = distillation.distance(mine, theirs, recipe(**options))
    averaged = (theirs / 3).softmax(-1).mean(0)
    wanted = 9 * F.kl_div((mine / 3).log_softmax(-1), averaged, reduction="batchmean")
    torch.testing.assert_close(paper, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_alpha_weighs_labels_against_neighbours(alpha: float, mine: Tensor, theirs: Tensor, labels: Tensor) -> None:
    mixed = recipe(measure="js", alpha=alpha)
    found = distillation.loss(mine, labels, theirs, mixed)
    wanted = alpha * F.cross_entropy(mine, labels) + (1 - alpha) * distillation.distance(mine, theirs, mixed)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("nobody", [None, torch.empty(0, 12, 5)])
def test_without_neighbours_labels_alone_teach_whatever_alpha_is(
    nobody: Tensor | None, mine: Tensor, labels: Tensor
) -> None:
    found = distillation.loss(mine, labels, nobody, recipe(alpha=0))
    torch.testing.assert_close(found, F.cross_entropy(mine, labels))


@pytest.mark.parametrize("measure", sorted(MEASURES))
@pytest.mark.parametrize("temperature", [1.0, 100.0])
def test_matched_makes_the_step_of_every_measure_as_long_as_that_of_the_labels(
    measure: str, temperature: float, mine: Tensor, theirs: Tensor, labels: Tensor
) -> None:
    matched = recipe(measure=measure, alpha=0, temperature=temperature, mode="matched")
    found = gradient(distillation.loss(mine, labels, theirs, matched), mine)
    wanted = gradient(F.cross_entropy(mine, labels), mine)
    assert found.norm().item() == pytest.approx(wanted.norm().item(), rel=1e-3)
    plain = gradient(distillation.loss(mine, labels, theirs, recipe(**{**matched.model_dump(), "mode": "paper"})), mine)
    assert F.cosine_similarity(found.ravel(), plain.ravel(), dim=0).item() == pytest.approx(1, abs=1e-4)


def test_at_high_temperature_steps_differ_in_length_alone_kl_td_js_sed_as_4_2_1_1(mine: Tensor, theirs: Tensor) -> None:
    steps = {
        measure: gradient(distillation.distance(mine, theirs, recipe(measure=measure, temperature=100)), mine)
        for measure in ("kl", "td", "js", "sed")
    }
    lengths = {measure: (step.norm() / steps["js"].norm()).item() for measure, step in steps.items()}
    assert lengths == pytest.approx({"kl": 4, "td": 2, "js": 1, "sed": 1}, rel=0.05)
    for step in steps.values():
        assert F.cosine_similarity(step.ravel(), steps["kl"].ravel(), dim=0) > 0.99
