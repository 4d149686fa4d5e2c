"""Federated rounds in one process: the same round as worked out by hand, and detectors under every strategy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diredi.decentralized.detectors import DetectorClient
from diredi.decentralized.federation import Federation
from diredi.decentralized.strategies import STRATEGIES, Message, StrategyRecipe, Tree, create_strategy
from diredi.detectors import registry
from tests.unit.distillation.rectangles import LABELS, recipe, rectangles

SIZE = 64


@dataclass
class Quadratic:
    """The loss a / 2 (w - b)^2; every minibatch is all there is. A buffer counts gradients."""

    a: float
    b: float
    samples: int
    steps: int = 2

    def learner(self, start: Message, number: int) -> Slope:
        return Slope(self, start["weights"], dict(start["buffers"]))


@dataclass
class Slope:
    of: Quadratic
    start: Tree
    buffers: Tree

    def full_gradient(self) -> Tree:
        return self._slope(self.start)

    def minibatch_gradient(self, weights: Tree, step: int) -> Tree:
        self.buffers = {"seen": self.buffers["seen"] + 1}
        return self._slope(weights)

    def reference_gradient(self, step: int) -> Tree:
        return self._slope(self.start)

    def _slope(self, weights: Tree) -> Tree:
        return {"w": self.of.a * (weights["w"] - self.of.b)}


def quadratics(kind: str) -> Federation:
    clients = [Quadratic(1, 0, 10), Quadratic(2, 3, 30)]
    start: Message = {"weights": {"w": torch.tensor(1.0)}, "buffers": {"seen": torch.tensor(0.0)}}
    return Federation(create_strategy(StrategyRecipe(kind=kind, learning_rate=0.1)), clients, start)


def test_a_round_of_fedavg_by_hand() -> None:
    """1 goes to 0.9 and 0.81; 2 to 1.4 and 1.72; 0.81 / 4 + 3 * 1.72 / 4 = 1.4925. Buffers are averaged, too."""
    federation = quadratics("fedavg")
    federation.run_round(0)
    assert float(federation.server["weights"]["w"]) == pytest.approx(1.4925)
    assert float(federation.server["buffers"]["seen"]) == 2
    assert (federation.bytes_down, federation.bytes_up) == (2 * 8, 2 * 8), "a weight and a buffer, to and from each"


@pytest.mark.parametrize("kind", sorted(set(STRATEGIES) - {"alone"}))
def test_every_strategy_goes_towards_what_is_best_for_all(kind: str) -> None:
    federation, best = quadratics(kind), 18 / 7
    for number in range(30):
        federation.run_round(number)
    assert abs(float(federation.server["weights"]["w"]) - best) < 0.5 * abs(1 - best)


def test_alone_everybody_has_weights_of_its_own_and_nothing_travels() -> None:
    federation = quadratics("alone")
    for number in range(60):
        federation.run_round(number)
    found = [float(federation.client_state(client)["weights"]["w"]) for client in range(2)]
    assert found == pytest.approx([0, 3], abs=0.01)
    assert federation.bytes_down == federation.bytes_up == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", STRATEGIES)
def test_detectors_learn_under_every_strategy(kind: str, tmp_path: Path) -> None:
    """Two sites with a class each; the loss on images of both falls by a quarter at least."""
    training = recipe(epochs=2, precision="fp32")
    clients = []
    for number in range(2):
        detector = registry.create("yolo11-w0.125", SIZE, LABELS, seed=0, device="cpu")
        samples = rectangles(tmp_path / str(number), 24, (number,), seed=number)
        clients.append(DetectorClient(detector, samples, training))
    strategy = StrategyRecipe(kind=kind, learning_rate=0.05, momentum=0.5)
    federation = Federation(create_strategy(strategy), clients, clients[0].initial_state())
    before = [_loss(client, federation.client_state(index)) for index, client in enumerate(clients)]
    for number in range(4):
        federation.run_round(number)
    after = [_loss(client, federation.client_state(index)) for index, client in enumerate(clients)]
    assert sum(after) < 0.75 * sum(before)
    finite = [bool(torch.isfinite(one).all()) for one in _tensors(federation.client_state(0))]
    assert all(finite)


def _loss(client: DetectorClient, state: Message) -> float:
    """On the client's own images, by the statistics that the detector has learned."""
    detector, total = client.load(state), 0.0
    with torch.no_grad():
        for batch in client.epoch(0):
            total += float(detector.detection_loss(detector.forward(batch.images), batch.targets))
    return total


def _tensors(state: Message) -> list[Tensor]:
    return [tensor for tree in state.values() for tensor in tree.values()]
