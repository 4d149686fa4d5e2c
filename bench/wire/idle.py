"""A learner that learns nothing: `exchanging.idle:learner`. Peer 0 is the hub of a star and averages what it hears."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diredi.decentralized.averaging import averaged
from diredi.store.weights import WeightMap
from peer_node.learner import Figures, Setting, Weights, WeightsOutline


class Idle:
    def __init__(self, weights: WeightMap, is_hub: bool) -> None:
        self._weights, self.listens_first = weights, is_hub
        self.outline = WeightsOutline(weights)

    def fit(self, round_: int) -> Figures:
        return {}

    def says(self, round_: int) -> Weights:
        return Weights(self._weights, 1)

    def question(self, round_: int) -> None:
        return None

    def learn(self, round_: int, answers: Mapping[str, Weights]) -> Figures:
        heard = list(answers.values())
        self._weights = averaged([one.weights for one in heard], [one.samples for one in heard])
        return {"heard": len(heard)}


def learner(setting: Setting) -> Idle:
    return Idle(WeightMap.load(Path(setting.data["file"])), is_hub=setting.peer == 0)
