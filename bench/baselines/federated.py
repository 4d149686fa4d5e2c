"""Federated averaging of the student between the cloud and one site, whole or by section.

FedAvg: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017; the
mean is weighted by numbers of images. By section: only backbone, neck or head are averaged and the rest stays at each
client, as UltraFlwr does. Batch-norm statistics are averaged like weights, counters are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from environment import BenchSite, Environment
from report import seconds

from baselines.alone import site_pool
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.knowledge.recipe import SECTIONS, Section
from diredi.knowledge.weight_kinds import KeyKind, kind_of
from diredi.store.weights import WeightMap

ROUNDS = 5


@dataclass(frozen=True)
class Federated:
    cloud: Detector
    site: Detector
    """The site's own, which differs from the cloud's in the sections that are not averaged."""
    bytes_up: int
    seconds: tuple[float, float]
    """Of the processor, in the cloud and at the site."""


def train_federated(
    environment: Environment, site: BenchSite, recipe: TrainRecipe, sections: Sequence[Section] = SECTIONS
) -> Federated:
    """The epochs or steps of `recipe`, spread over rounds, at a learning rate that falls from round to round."""
    clients = [environment.student.expand_classes(site.labels) for _ in range(2)]
    data = [Pool(environment.presumed.train), site_pool(site)]
    counts = [len(pool.samples) for pool in data]
    sent, spent = 0, [0.0, 0.0]
    for number in range(ROUNDS):
        share = 1 - number / ROUNDS
        local = recipe.model_copy(
            update={
                "epochs": recipe.epochs / ROUNDS,
                "steps": recipe.steps and max(recipe.steps // ROUNDS, 1),
                "learning_rate": recipe.learning_rate * share,
                "final_learning_rate": (share - 1 / ROUNDS) / share,
                "warmup": recipe.warmup * ROUNDS if number == 0 else 0.0,
                "seed": environment.seed + number,
            }
        )
        for who, (client, pool) in enumerate(zip(clients, data, strict=True)):
            began = seconds()
            train(client, [pool], local)
            spent[who] += seconds() - began
        weights = [client.weights() for client in clients]
        shared = [
            name for name, array in weights[0].items() if is_averaged(clients[0], name, str(array.dtype), sections)
        ]
        total = sum(counts)
        mean: dict[str, Any] = {
            name: sum(w[name] * (n / total) for w, n in zip(weights, counts, strict=True)) for name in shared
        }
        sent += sum(weights[1][name].nbytes for name in shared)
        for client, mine in zip(clients, weights, strict=True):
            client.load_weights(WeightMap({**mine, **{name: mean[name].astype("float32") for name in shared}}))
    return Federated(clients[0], clients[1], sent, (spent[0], spent[1]))


def is_averaged(detector: Detector, name: str, dtype: str, sections: Sequence[Section]) -> bool:
    return kind_of(name, dtype) is not KeyKind.COUNTER and detector.section_of(name) in sections
