"""Rounds worked out by hand, on losses f_i(w) = a_i / 2 (w - b_i)^2, and what each paper promises.

The problem, unless a test says otherwise: a = (1, 2), b = (0, 3), samples 10 and 30, so p = (1/4, 3/4); w starts at 1,
the rate is 0.1. Gradients at 1 are 1 (1 - 0) = 1 and 2 (1 - 3) = -4, their mean is 1/4 - 3 = -2.75. The loss over all
samples is smallest at (p_1 a_1 b_1 + p_2 a_2 b_2) / (p_1 a_1 + p_2 a_2) = 4.5 / 1.75 = 18/7.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from diredi.decentralized.strategies import (
    STRATEGIES,
    ClientContext,
    Cohort,
    Message,
    StrategyRecipe,
    Tree,
    create_strategy,
)
from diredi.decentralized.strategies.base import add_messages, message_bytes, train_client, weight_upload
from diredi.errors import InvalidInput

BEST = 18 / 7


@dataclass
class Quadratics:
    """One client, or several in a stack; every minibatch is all there is."""

    a: Tensor
    b: Tensor
    start: Tree

    def full_gradient(self) -> Tree:
        return self.minibatch_gradient(self.start, 0)

    def minibatch_gradient(self, weights: Tree, step: int) -> Tree:
        return {"w": self.a * (weights["w"] - self.b)}

    def reference_gradient(self, step: int) -> Tree:
        return self.full_gradient()


@dataclass
class QuadraticTask:
    """The protocol as its users run it, for clients in one stack or one after the other."""

    recipe: dict[str, Any]
    a: tuple[float, ...] = (1, 2)
    b: tuple[float, ...] = (0, 3)
    samples: tuple[float, ...] = (10, 30)
    steps: tuple[float, ...] = (2, 2)
    stacked: bool = True
    memories: dict[int, Message] = field(default_factory=dict)
    down: int = 0
    up: int = 0

    def __post_init__(self) -> None:
        self.strategy = create_strategy(StrategyRecipe(**{"learning_rate": 0.1, **self.recipe}))
        self.server: Message = self.strategy.initial_server_state({"w": torch.tensor(1.0)})

    @property
    def w(self) -> float:
        return float(self.server["weights"]["w"])

    def round(self, awake: tuple[int, ...] | None = None) -> QuadraticTask:
        awake = tuple(range(len(self.a))) if awake is None else awake
        clients = Cohort(
            torch.tensor([self.samples[i] for i in awake]),
            torch.tensor([self.steps[i] for i in awake]),
            len(self.a),
            int(sum(self.samples)),
            sum(self.steps) / len(self.steps),
        )
        shares, rates = self.strategy.aggregation_weights(clients), self.strategy.learning_rates(clients)
        groups: list[Any] = [slice(0, len(awake))] if self.stacked else list(range(len(awake)))
        sent, mean = self.strategy.broadcast(self.server), {}
        if self.strategy.requires_mean_gradient:
            mean = self._mean(
                [{"gradient": self._learner(awake, at, sent).full_gradient()} for at in groups], groups, shares
            )
            sent = {**sent, **self.strategy.broadcast_gradient(mean["gradient"])}
        self.down += message_bytes(sent) * len(awake)
        uploads = []
        for at in groups:
            learner = self._learner(awake, at, sent)
            own = learner.full_gradient() if self.strategy.requires_full_gradient else {}
            local = ClientContext(sent, self._memory(awake, at), own, rates[at], clients.steps[at])
            upload, memory = train_client(self.strategy, learner, local)
            uploads.append(upload)
            for place, i in enumerate(awake[at] if self.stacked else [awake[at]]):
                self.memories[i] = self._picked(memory, place) if self.stacked else memory
        mean = {**mean, **self._mean(uploads, groups, shares)}
        self.server = self.strategy.aggregate(self.server, mean, clients)
        return self

    def _learner(self, awake: tuple[int, ...], at: Any, sent: Message) -> Quadratics:
        """`at` picks some of `awake`: an index gives one client, a slice a stack."""
        a, b = (torch.tensor([numbers[i] for i in awake])[at] for numbers in (self.a, self.b))
        memory = self._memory(awake, at)
        start = (memory if "weights" in memory else sent)["weights"]["w"]
        return Quadratics(a, b, {"w": start.expand(a.shape)})

    def _memory(self, awake: tuple[int, ...], at: Any) -> Message:
        first = self.strategy.initial_client_state(self.server)
        found = [self.memories.get(i, first) for i in awake]
        return {name: {"w": torch.stack([one[name]["w"] for one in found])[at]} for name in first}

    def _mean(self, uploads: list[Message], groups: list[Any], shares: Tensor) -> Message:
        self.up += sum(message_bytes(upload) for upload in uploads)
        parts = [weight_upload(upload, shares[at], shares[at]) for upload, at in zip(uploads, groups, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = add_messages(total, part)
        return total

    @staticmethod
    def _picked(memory: Message, place: int) -> Message:
        return {name: {"w": tree["w"][place]} for name, tree in memory.items()}


def near(value: float) -> Any:
    return pytest.approx(value, abs=2e-6)


@pytest.fixture(params=[True, False], ids=["stacked", "one by one"])
def world(request: pytest.FixtureRequest):
    return lambda recipe, **more: QuadraticTask(recipe, stacked=request.param, **more)


def test_fedavg_by_hand(world) -> None:
    """1 goes 1 - 0.1 (1) = 0.9, 0.9 - 0.09 = 0.81; 2 goes 1 + 0.4 = 1.4, 1.4 + 0.1 * 2 * 1.6 = 1.72;
    0.81 / 4 + 3 * 1.72 / 4 = 1.4925."""
    assert world({"kind": "fedavg"}).round().w == near(1.4925)


def test_a_server_with_half_the_rate_goes_half_the_way(world) -> None:
    assert world({"kind": "fedavg", "server_learning_rate": 0.5}).round().w == near(1.24625)


def test_fedprox_by_hand(world) -> None:
    """With mu = 1 the second steps are drawn back: 0.9 - 0.1 (0.9 - 0.1) = 0.82 and 1.4 - 0.1 (-3.2 + 0.4) = 1.68."""
    assert world({"kind": "fedprox", "mu": 1.0}).round().w == near(0.82 / 4 + 3 * 1.68 / 4)


def test_fedprox_with_mu_0_is_fedavg(world) -> None:
    one, other = world({"kind": "fedprox", "mu": 0.0}), world({"kind": "fedavg"})
    for _ in range(3):
        assert one.round().w == other.round().w


def test_scaffold_by_hand(world) -> None:
    """Round 1 is FedAvg's, for all controls are 0. Then c_1 = (1 - 0.81) / 0.2 = 0.95, c_2 = (1 - 1.72) / 0.2 = -3.6,
    c = 0.95 / 4 - 3 * 3.6 / 4 = -2.4625. In round 2, from 1.4925, 1 goes along w - 0.95 - 2.4625: to 1.6845, 1.8573;
    2 along 2 (w - 3) + 3.6 - 2.4625: to 1.68025, 1.83045."""
    here = world({"kind": "scaffold"}).round()
    assert here.w == near(1.4925)
    assert [float(here.memories[i]["control"]["w"]) for i in (0, 1)] == [near(0.95), near(-3.6)]
    assert float(here.server["control"]["w"]) == near(-2.4625)
    assert here.round().w == near(1.8573 / 4 + 3 * 1.83045 / 4)


def test_scaffold_with_option_1_remembers_the_gradient_at_the_start(world) -> None:
    here = world({"kind": "scaffold", "option": 1}).round()
    assert [float(here.memories[i]["control"]["w"]) for i in (0, 1)] == [near(1), near(-4)]
    assert float(here.server["control"]["w"]) == near(-2.75)


def test_scaffolds_control_is_the_mean_of_all_clients_though_some_sleep(world) -> None:
    here = world({"kind": "scaffold"}).round(awake=(0,)).round(awake=(1,)).round(awake=(1,))
    own = [float(here.memories[i]["control"]["w"]) for i in (0, 1)]
    assert float(here.server["control"]["w"]) == near(own[0] / 4 + 3 * own[1] / 4)


def test_fedlin_by_hand(world) -> None:
    """The mean gradient is -2.75: 1 goes along w - 1 - 2.75, to 1.275, 1.5225; 2 along 2 (w - 3) + 4 - 2.75, to 1.275,
    1.495."""
    assert world({"kind": "fedlin"}).round().w == near(1.5225 / 4 + 3 * 1.495 / 4)


def test_fedlin_by_hand_with_unequal_steps(world) -> None:
    """1 and 2 steps, 1.5 on average: the rates are 0.15 and 0.075. 1 goes to 1 + 0.15 * 2.75 = 1.4125; 2 to 1.20625,
    then along 2 * 1.20625 - 4.75 = -2.3375 to 1.3815625."""
    assert world({"kind": "fedlin"}, steps=(1, 2)).round().w == near(1.4125 / 4 + 3 * 1.3815625 / 4)


def test_mime_by_hand(world) -> None:
    """Momentum 0.5, and the server's is 0: half of FedLin's directions. 1 goes 1 + 0.1375 = 1.1375, then along
    (1.1375 - 3.75) / 2 to 1.268125; 2 to 1.1375, then along (2.275 - 4.75) / 2 to 1.26125. The momentum becomes half of
    the mean gradient at 1."""
    here = world({"kind": "mime", "momentum": 0.5}).round()
    assert here.w == near(1.268125 / 4 + 3 * 1.26125 / 4)
    assert float(here.server["momentum"]["w"]) == near(-1.375)


def test_mimes_second_round_goes_along_its_momentum(world) -> None:
    """One step each: round 1 ends at 1.1375 with momentum -1.375. There the gradients are 1.1375 and -3.725, on average
    -2.509375, so all go along (-2.509375 - 1.375) / 2 = -1.9421875."""
    here = world({"kind": "mime", "momentum": 0.5}, steps=(1, 1)).round().round()
    assert here.w == near(1.1375 + 0.19421875)


def test_mimelite_by_hand(world) -> None:
    """Half of the plain gradients: 1 goes to 0.95, 0.9025; 2 to 1.2, 1.38. The momentum is as Mime's."""
    here = world({"kind": "mime", "momentum": 0.5, "lite": True}).round()
    assert here.w == near(0.9025 / 4 + 3 * 1.38 / 4)
    assert float(here.server["momentum"]["w"]) == near(-1.375)


def test_fednova_by_hand(world) -> None:
    """1 and 2 steps: changes of -0.1 and 0.72, for each step -0.1 and 0.36, on average 0.245; the mean number of steps
    is 1/4 + 3/4 * 2 = 1.75."""
    assert world({"kind": "fednova"}, steps=(1, 2)).round().w == near(1 + 1.75 * 0.245)


def test_fedshuffle_by_hand(world) -> None:
    """1 and 2 steps, rates 0.15 and 0.075: 1 goes to 0.85; 2 to 1.3, then to 1.3 + 0.075 * 2 * 1.7 = 1.555."""
    assert world({"kind": "fedshuffle"}, steps=(1, 2)).round().w == near(0.85 / 4 + 3 * 1.555 / 4)


def test_fedshuffle_counts_a_client_by_its_chance_to_be_awake(world) -> None:
    """Client 2 alone, awake with a chance of 1/2: its change of 0.555 counts 3/4 / (1/2) = 1.5 times."""
    assert world({"kind": "fedshuffle"}, steps=(1, 2)).round(awake=(1,)).w == near(1 + 1.5 * 0.555)


def test_alone_is_local_training_and_nothing_else(world) -> None:
    """1: 1, 0.9, 0.81, 0.729, 0.6561. 2: 3 - 2 * 0.8^4 = 2.1808."""
    here = world({"kind": "alone"}).round().round()
    assert [float(here.memories[i]["weights"]["w"]) for i in (0, 1)] == [near(0.6561), near(2.1808)]
    assert here.w == 1


BYTES = {
    "fedavg": (4, 4),
    "fedprox": (4, 4),
    "scaffold": (8, 8),  # and the control, both ways
    "mime": (12, 8),  # and momentum and mean gradient; and the gradient
    "fednova": (4, 4),
    "fedlin": (8, 8),  # and the mean gradient; and the gradient
    "fedshuffle": (4, 4),
    "alone": (0, 0),
}


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_every_byte_on_the_wire_is_counted(kind, world) -> None:
    here = world({"kind": kind}).round()
    assert (here.down, here.up) == tuple(2 * each for each in BYTES[kind]), "one fp32 weight, two clients"


def test_mimelite_is_not_sent_the_mean_gradient(world) -> None:
    here = world({"kind": "mime", "lite": True}).round()
    assert (here.down, here.up) == (16, 16)


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_a_stack_gives_what_one_client_at_a_time_gives(kind) -> None:
    problem = {"a": (1, 2, 0.5), "b": (0, 3, -1), "samples": (10, 30, 5), "steps": (1, 4, 2)}
    one, other = (QuadraticTask({"kind": kind}, stacked=stacked, **problem) for stacked in (True, False))
    for awake in ((0, 1, 2), (0, 2), (1, 2)):
        one.round(awake), other.round(awake)
    assert one.w == near(other.w)
    assert (one.down, one.up) == (other.down, other.up)
    for i, memory in one.memories.items():
        for name, tree in memory.items():
            assert float(tree["w"]) == near(float(other.memories[i][name]["w"]))


@pytest.mark.parametrize(("recipe", "finds_it"), [
    ({"kind": "fedavg"}, False), ({"kind": "fedprox", "mu": 0.1}, False),
    ({"kind": "scaffold"}, True), ({"kind": "scaffold", "option": 1}, True), ({"kind": "fedlin"}, True),
])  # fmt: skip
def test_what_corrects_each_step_finds_the_optimum_of_unlike_clients(recipe, finds_it) -> None:
    here = QuadraticTask(recipe, steps=(5, 5))
    for _ in range(150):
        here.round()
    assert (abs(here.w - BEST) < 1e-4) is finds_it
    assert finds_it or abs(here.w - BEST) > 0.05


@pytest.mark.parametrize(("kind", "is_fair"), [("fedavg", False), ("fednova", True), ("fedshuffle", True)])
def test_a_client_that_takes_more_steps_has_more_say_only_in_fedavg(kind, is_fair) -> None:
    """a = 1, so the optimum is p . b = 2.25; with tiny steps FedAvg ends at that of shares p_i * steps_i:
    (3/4 * 8 * 3) / (1/4 * 2 + 3/4 * 8) = 2.769."""
    here = QuadraticTask({"kind": kind, "learning_rate": 1e-3, "server_learning_rate": 50.0}, a=(1, 1), steps=(2, 8))
    for _ in range(100):
        here.round()
    assert here.w == pytest.approx(2.25 if is_fair else 2.769, abs=0.01)


def test_buffers_are_averaged_by_samples_and_counters_are_the_largest_whatever_the_strategy() -> None:
    upload = {
        "change": {"w": torch.tensor([1.0, 3.0])},
        "buffers": {"mean": torch.tensor([[0.0, 8.0], [4.0, 0.0]]), "batches": torch.tensor([5, 7])},
    }
    shares, of_samples = torch.tensor([2.0, 1.0]), torch.tensor([0.25, 0.75])
    whole = weight_upload(upload, shares, of_samples)
    one, other = (
        weight_upload({n: {k: t[i] for k, t in tree.items()} for n, tree in upload.items()}, shares[i], of_samples[i])
        for i in (0, 1)
    )
    for mean in (whole, add_messages(one, other)):
        assert mean["change"]["w"] == 5
        assert mean["buffers"]["mean"].tolist() == [3, 2]
        assert mean["buffers"]["batches"] == 7
        assert mean["buffers"]["batches"].dtype == torch.int64


def test_an_unknown_strategy_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"fedavgg.*alone, fedavg, fedlin"):
        create_strategy(StrategyRecipe(kind="fedavgg"))


def test_a_number_that_a_strategy_does_not_have_is_refused() -> None:
    with pytest.raises(ValidationError, match="mu_"):
        StrategyRecipe(kind="fedprox", mu_=1)  # type: ignore[call-arg]
