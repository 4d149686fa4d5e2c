"""FedAvgLearner between peers: weights travel, where `create_learner` lets nothing travel but predictions.

    learner: peer_node.fedavg_learner:create_learner
    topology: {kind: star}
    options: {hub: 0, network: {backbone: cnn}, training: {epochs: 1}}

With a hub, which must be everybody's only neighbour, a round is one of FedAvg (McMahan et al., AISTATS 2017, Algorithm
1): all learn their own labels, the hub averages what they have learned, its own too, and everybody goes on from that.
Without one each peer goes on from the mean of itself and its neighbours. Means are weighted by private images.

Somebody's weights give away more about their images than what they say of public ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import Field

from diredi.config import Config
from diredi.decentralized.averaging import averaged
from diredi.decentralized.network import MAIN
from diredi.decentralized.recipe import NetworkRecipe, TrainingRecipe
from diredi.errors import InvalidInput
from diredi.store.weights import WeightMap
from peer_node.classification import DataConfig, create_peer, load_data, parse_section
from peer_node.learner import LearnerContext, Metrics, Weights, WeightsSpec


class Options(Config):
    """How it is learned. There are no auxiliary heads."""

    network: NetworkRecipe = NetworkRecipe(backbone="mlp", auxiliary=0)
    training: TrainingRecipe = TrainingRecipe(epochs=1, batch=32)
    hub: int | None = Field(default=None, ge=0)
    """Which peer averages for all, counted from 0; None: each does for itself."""


def create_learner(context: LearnerContext) -> FedAvgLearner:
    """Raises InvalidInput where `data` or `options` are wrong, and what loading the set raises."""
    torch.set_num_threads(1)  # peers of one machine would wait for each other's threads at every operator
    return FedAvgLearner(context, parse_section(DataConfig, context.data), parse_section(Options, context.options))


class FedAvgLearner:
    def __init__(self, context: LearnerContext, data: DataConfig, options: Options) -> None:
        found, network = load_data(data), options.network.model_copy(update={"auxiliary": 0})
        self._training, self._test = options.training, found.test
        self._peer = create_peer(context, data, network, found, seed=context.seed)
        self._has_hub = options.hub is not None
        self.collects_first = options.hub == context.peer
        self._own = self._weights()
        self.payload_spec = WeightsSpec(self._own)

    def fit(self, round_: int) -> Metrics:
        """Whose weights leave the numbers, as after a mean with some that were meant to, goes back to its own last."""
        self._peer.learn_labels(self._training, round_)
        if _is_finite(self._weights()):
            self._own = self._weights()
        else:
            self._load(self._own)
        return self._accuracy()

    def compute_update(self, round_: int) -> Weights:
        return Weights(self._weights(), len(self._peer.labels))

    def build_request(self, round_: int) -> None:
        return None

    def learn(self, round_: int, answers: Mapping[str, Weights]) -> Metrics:
        """A hub that is silent leaves everybody with their own. In the order of names, so that sums are the same."""
        heard = [answers[name] for name in sorted(answers)]
        if self.collects_first or not self._has_hub:
            heard = [self.compute_update(round_), *heard]
        mean = averaged([one.weights for one in heard], [one.samples for one in heard]) if heard else self._own
        if _is_finite(mean):
            self._load(mean)
        return self._accuracy()

    def _weights(self) -> WeightMap:
        return WeightMap({name: value.numpy().copy() for name, value in self._peer.network.state_dict().items()})

    def _load(self, weights: WeightMap) -> None:
        self._peer.network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})

    def _accuracy(self) -> Metrics:
        """On the set's test images; 0 to 1."""
        said = self._peer.answers(torch.from_numpy(self._test.images), MAIN).argmax(-1).numpy()
        return {"accuracy": float(np.mean(said == self._test.labels))}


def _is_finite(weights: WeightMap) -> bool:
    try:
        weights.check_finite()
    except InvalidInput:
        return False
    return True
