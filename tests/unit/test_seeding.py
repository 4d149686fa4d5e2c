"""One seed gives one network, whatever other threads of the process are making."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from diredi.decentralized.network import create_network
from diredi.decentralized.recipe import NetworkRecipe
from diredi.detectors import registry
from diredi.labels import LabelSpace
from diredi.seeding import seeded


def of_peer(seed: int) -> list[torch.Tensor]:
    return list(create_network(NetworkRecipe(backbone="mlp"), (1, 8, 8), 10, seed).state_dict().values())


def of_detector(seed: int) -> list[torch.Tensor]:
    labels = LabelSpace(names=("car",))
    detector = registry.create("yolo11-w0.125", 64, labels, seed=seed, device="cpu")
    return [torch.from_numpy(array) for array in detector.weights().values()]


def alike(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_networks_made_side_by_side_are_those_that_are_made_alone() -> None:
    jobs = [(make, seed) for seed in range(4) for make in (of_peer, of_detector)] * 8
    alone = [make(seed) for make, seed in jobs[:8]] * 8
    with ThreadPoolExecutor(8) as threads:
        beside = list(threads.map(lambda job: job[0](job[1]), jobs))
    assert [index for index, pair in enumerate(zip(alone, beside, strict=True)) if not alike(*pair)] == []
    assert not alike(alone[0], alone[2]), "seeds differ"


def test_what_is_drawn_outside_is_as_if_nothing_had_been_drawn_inside() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    with seeded(1):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), wanted)
    assert not torch.equal(inside, wanted)
