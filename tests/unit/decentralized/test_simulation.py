from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from tiny_task import Network, convolutional, dense, tiny_set, unlike_shards
from torch import nn

from diredi.decentralized.simulation.recipe import EngineRecipe, SimulationRecipe
from diredi.decentralized.simulation.round import RoundMetrics
from diredi.decentralized.simulation.simulate import SimulationResult, simulate
from diredi.decentralized.strategies import STRATEGIES, StrategyRecipe
from diredi.errors import DirediError, InvalidInput
from diredi.store.weights import WeightMap

DATA, SHARDS = tiny_set(), unlike_shards()
KILLED = """
import sys
from pathlib import Path
from test_simulation import recipe, run

if __name__ == "__main__":
    given = recipe("scaffold", rounds=6, fraction=0.5)
    run(given, Path(sys.argv[1]), workers=2, on_round=lambda figures: print(figures.number, flush=True))
"""


class Stopped(Exception):
    """What a test does to a simulation that it wants to end in the middle."""


def recipe(kind: str = "fedavg", strategy: dict[str, Any] | None = None, **simulation: Any) -> SimulationRecipe:
    chosen = StrategyRecipe(**{"kind": kind, "learning_rate": 0.2, "batch": 8, **(strategy or {})})
    return SimulationRecipe(**{"strategy": chosen, "rounds": 3, "chunk": 2, **simulation})


def run(given: SimulationRecipe, folder: Path, module: nn.Module | None = None, **more: Any) -> SimulationResult:
    engine = EngineRecipe(workers=more.pop("workers", 1), ray=more.pop("ray", None))
    return simulate(given, module or dense(), DATA, more.pop("shards", SHARDS), folder, engine, **more)


def stopped_after(number: int):
    def stop(metrics: RoundMetrics) -> None:
        if metrics.number == number:
            raise Stopped

    return stop


def metrics(outcome: SimulationResult) -> list[dict[str, Any]]:
    """All but the seconds."""
    return [one.model_dump(exclude={"seconds"}) for one in outcome.history]


def assert_same(one: SimulationResult, other: SimulationResult) -> None:
    """To the last bit."""
    assert metrics(one) == metrics(other)
    assert all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())


def gradient_descent(steps: int, rate: float) -> dict[str, torch.Tensor]:
    """On all samples of all clients at once."""
    module = dense()
    images, labels = torch.tensor(DATA.train.images), torch.tensor(DATA.train.labels)
    for _ in range(steps):
        gradients = torch.autograd.grad(F.cross_entropy(module(images), labels), list(module.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(module.parameters(), gradients, strict=True):
                weight.sub_(rate * gradient)
    return dict(module.state_dict())


@pytest.mark.parametrize("kind", sorted(STRATEGIES.keys() - {"alone"}))
def test_clients_learn_from_each_other(kind, tmp_path) -> None:
    history = run(recipe(kind, rounds=8), tmp_path).history
    assert history[0].accuracy < 0.7
    assert history[-1].accuracy > 0.8
    assert history[-1].training_loss < history[0].training_loss


def test_alone_they_learn_their_own_samples_and_little_of_the_others(tmp_path) -> None:
    history = run(recipe("alone", rounds=8), tmp_path).history
    assert history[-1].training_loss < 0.1
    assert history[-1].accuracy < 0.6
    assert history[-1].bytes_down == history[-1].bytes_up == 0


@pytest.mark.parametrize("kind", sorted(STRATEGIES.keys() - {"alone"}))
def test_steps_of_all_clients_with_all_samples_are_gradient_descent(kind, tmp_path) -> None:
    """The mean of n clients' gradients, by samples, is the gradient of all; every strategy keeps to that."""
    given = recipe(kind, {"steps": 1, "batch": 240, "momentum": 0.0, "mu": 0.5}, rounds=3)
    outcome, expected = run(given, tmp_path), gradient_descent(3, 0.2)
    for name, weight in outcome.weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_a_stack_of_clients_learns_what_each_learns_by_itself(kind, tmp_path) -> None:
    stacked = run(recipe(kind, training="stacked", chunk=6), tmp_path / "stacked")
    single = run(recipe(kind, training="one by one", chunk=6), tmp_path / "single")
    for name, weight in stacked.weights.items():
        torch.testing.assert_close(weight, single.weights[name], rtol=1e-4, atol=1e-5)
    for one, other in zip(stacked.history, single.history, strict=True):
        assert one.training_loss == pytest.approx(other.training_loss, abs=1e-4)
        assert (one.bytes_down, one.bytes_up) == (other.bytes_down, other.bytes_up)


@pytest.mark.slow
def test_a_simulation_that_the_kernel_killed_ends_as_if_it_had_not_been(tmp_path) -> None:
    """Two workers made its first rounds, and one process the rest and all of the other: equal to the last bit."""
    given = recipe("scaffold", rounds=6, fraction=0.5)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    (tmp_path / "program.py").write_text(KILLED)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "killed")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "2":
                workers = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, "no worker outlives its simulation"
    rounds: list[int] = []
    resumed = run(given, tmp_path / "killed", on_round=lambda metrics: rounds.append(metrics.number))
    assert rounds[0] >= 3 and rounds[-1] == 5
    assert_same(resumed, run(given, tmp_path / "whole"))


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_one_sentence_and_one_round(tmp_path) -> None:
    def kill(metrics: RoundMetrics) -> None:
        # All are gone where the round ended just before it was noticed that one was killed.
        for worker in multiprocessing.active_children()[:1]:
            worker.kill()

    with pytest.raises(DirediError, match="a worker process died"):
        run(recipe("scaffold"), tmp_path / "killed", workers=2, on_round=kill)
    assert not (tmp_path / "killed" / "images.npy").exists()
    assert_same(run(recipe("scaffold"), tmp_path / "killed"), run(recipe("scaffold"), tmp_path / "whole"))
    assert multiprocessing.active_children() == []


def test_what_an_unfinished_round_has_written_is_not_looked_at(tmp_path) -> None:
    given = recipe("scaffold", rounds=4)
    with pytest.raises(Stopped):
        run(given, tmp_path / "stopped", on_round=stopped_after(1))
    for client in range(len(SHARDS)):
        kept = tmp_path / "stopped" / "clients" / str(client) / "1.safetensors"
        WeightMap.load(kept).mapped(lambda _, a: a + 1).save(kept.with_name("2.safetensors"))
    assert_same(run(given, tmp_path / "stopped"), run(given, tmp_path / "whole"))


def test_a_simulation_that_is_done_is_not_done_again_and_another_starts_afresh(tmp_path) -> None:
    short, rounds = recipe("scaffold", rounds=1), list[RoundMetrics]()
    first = run(short, tmp_path / "kept")
    assert_same(run(short, tmp_path / "kept", on_round=rounds.append), first)
    assert rounds == []
    other = recipe("scaffold", rounds=4, fraction=0.5, seed=1)
    assert_same(run(other, tmp_path / "kept"), run(other, tmp_path / "new"))


def test_scaffolds_clients_find_their_controls_again_after_rounds_of_sleep(tmp_path) -> None:
    """The server's control is the mean of all clients', by samples, only if none was ever lost."""
    outcome = run(recipe("scaffold", rounds=8, clients_per_round=2), tmp_path)
    assert outcome.history[-1].awake == 2
    (server,) = (tmp_path / "checkpoint").glob("*.safetensors")
    control = {name: array for name, array in WeightMap.load(server).items() if name.startswith("control/")}
    mean = {name: np.zeros_like(array) for name, array in control.items()}
    for folder in (tmp_path / "clients").iterdir():
        (kept,) = folder.iterdir()
        for name, array in WeightMap.load(kept).items():
            mean[name] += array * len(SHARDS[int(folder.name)]) / len(DATA.train)
    assert len(list((tmp_path / "clients").iterdir())) > 2
    for name, array in control.items():
        np.testing.assert_allclose(array, mean[name], rtol=1e-3, atol=1e-6)


def test_ten_thousand_sleeping_clients_take_no_memory_and_no_disk(tmp_path) -> None:
    def peak(clients: int) -> int:
        shards = list(np.arange(240).reshape(-1, 8)[np.arange(clients) % 30])
        given = recipe("scaffold", rounds=2, clients_per_round=10)
        tracemalloc.start()
        try:
            run(given, tmp_path / str(clients), shards=shards)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # whatever is loaded only once
    assert (peak(10_000) - peak(100)) / 9_900 < 250, "bytes for a sleeping client"
    assert len(list((tmp_path / "10000" / "clients").iterdir())) <= 20


def test_batch_norm_learns_and_its_statistics_travel_with_the_weights(tmp_path) -> None:
    outcome = run(recipe(rounds=8), tmp_path, convolutional())
    assert outcome.history[-1].accuracy > 0.8
    steps = [-(-len(shard) // 8) for shard in SHARDS]
    assert outcome.weights["layers.1.num_batches_tracked"] == 8 * max(steps), "the largest, not the mean"
    parameters = sum(p.numel() for p in convolutional().parameters())
    statistics, counter = 2 * 4, 8
    assert outcome.history[0].bytes_up == 6 * (4 * (parameters + statistics) + counter)


def test_dropout_is_drawn_from_the_seed_and_the_callers_randomness_stays_as_it_was(tmp_path) -> None:
    module = dense(nn.Dropout(0.5))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = run(recipe(), tmp_path / "one", module)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert_same(run(recipe(), tmp_path / "other", module), one)
    assert metrics(run(recipe(), tmp_path / "without", dense())) != metrics(one)


def test_a_client_of_few_steps_sees_other_samples_in_every_round_and_never_those_of_others(tmp_path) -> None:
    seen: list[np.ndarray] = []

    class Watched(Network):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(images.numpy())
            return super().forward(images)

    own = np.arange(0, 40)
    given = recipe("fedavg", {"steps": 1, "batch": 8}, rounds=12, training="one by one")
    run(given, tmp_path, Watched(nn.Flatten(), nn.Linear(16, 3)), shards=[own])
    found, wanted = ({image.tobytes() for image in images} for images in (np.concatenate(seen), DATA.train.images[own]))
    assert len(seen) == 12
    assert found <= wanted
    assert len(found) > 30, "12 draws of 8 of 40 leave few out"


def test_the_module_itself_is_not_changed(tmp_path) -> None:
    module, fresh = dense(), dense()
    run(recipe(), tmp_path, module)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), fresh.parameters(), strict=True))
    assert module.training


def test_only_every_kth_round_and_the_last_is_evaluated(tmp_path) -> None:
    history = run(recipe(rounds=5, evaluate_every=2), tmp_path).history
    assert [one.accuracy is not None for one in history] == [False, True, False, True, True]


def test_workers_refuse_a_module_that_they_cannot_import(tmp_path) -> None:
    class ClientContext(Network):
        pass

    with pytest.raises(InvalidInput, match="workers cannot import the module"):
        run(recipe(), tmp_path, ClientContext(nn.Flatten(), nn.Linear(16, 3)), workers=2)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_ray_finds_what_one_process_finds(tmp_path) -> None:
    given = recipe("scaffold", rounds=2)
    assert_same(run(given, tmp_path / "ray", ray="local", workers=2), run(given, tmp_path / "one"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_ray_node_that_cannot_import_the_module_is_one_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path != str(Path(__file__).parent)))
    with pytest.raises(DirediError, match=r"the Ray cluster at 'local' cannot work \(.*tiny_task"):
        run(recipe(), tmp_path, ray="local")


def test_without_ray_its_address_is_refused_in_one_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInput, match="Ray is not installed"):
        run(recipe(), tmp_path, ray="local")


@pytest.mark.parametrize(("simulation", "module", "shards", "said"), [
    ({"kind": "fedsgd"}, dense, SHARDS, "no strategy 'fedsgd'"),
    ({"clients_per_round": 7}, dense, SHARDS, "there are 6 clients"),
    ({}, dense, [], "there are 0 clients"),
    ({}, dense, [SHARDS[0], SHARDS[1][:0]], "client 1 has 0 samples"),
    ({}, dense, [np.array([0, 240])], "not all within the 240 of 'tiny'"),
    ({}, lambda: Network(nn.Flatten(), nn.Linear(16, 2)), SHARDS, r"gives \[2, 2\].*should give \[2, 3\]"),
    ({}, lambda: nn.Linear(16, 3), SHARDS, "cannot take the uint8 images"),
    ({"training": "stacked"}, convolutional, SHARDS, "batch norm cannot be trained stacked"),
    ({}, convolutional, [SHARDS[0], SHARDS[1][:1]], "client 1 has a batch of one sample"),
    ({"strategy": {"learning_rate": 1e30}}, dense, SHARDS, "lower the learning rate"),
])  # fmt: skip
def test_what_cannot_be_simulated_is_refused_in_one_sentence(simulation, module, shards, said, tmp_path) -> None:
    with pytest.raises(InvalidInput, match=said):
        run(recipe(**simulation), tmp_path, module(), shards=shards)
