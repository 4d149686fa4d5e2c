"""A learner that learns nothing: `wire.idle:learner`. Peer 0 is the hub of a star and averages what it hears."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diredi.decentralized.averaging import average
from diredi.store.weights import WeightMap
from peer_node.learner import LearnerContext, Metrics, Weights, WeightsSpec


class Idle:
    def __init__(self, weights: WeightMap, is_hub: bool) -> None:
        self._weights, self.collects_first = weights, is_hub
        self.payload_spec = WeightsSpec(weights)

    def fit(self, round_: int) -> Metrics:
        return {}

    def compute_update(self, round_: int) -> Weights:
        return Weights(self._weights, 1)

    def build_request(self, round_: int) -> None:
        return None

    def learn(self, round_: int, answers: Mapping[str, Weights]) -> Metrics:
        heard = list(answers.values())
        self._weights = average([one.weights for one in heard], [one.samples for one in heard])
        return {"heard": len(heard)}

    def save(self, path: Path) -> None:
        self._weights.save(path)


def learner(context: LearnerContext) -> Idle:
    return Idle(WeightMap.load(Path(context.data["file"])), is_hub=context.peer == 0)
