"""A learner that averages weights with its neighbours: FedAvg where there is a hub.

    learner: peer_node.fedavg_learner:create_learner
    topology: {kind: star}
    options: {hub: 0, network: {backbone: cnn}, training: {epochs: 1}}

With a hub, which must be everybody's only neighbour, a round is one of FedAvg (McMahan et al., AISTATS 2017, Algorithm
1): all learn their own labels, the hub averages their weights and its own, and everybody goes on from the mean. Without
a hub each peer goes on from the mean of its own and its neighbours' weights. Means are weighted by private images.

Weights give away more about private images than predictions of public ones do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from diredi.config import Config
from diredi.decentralized.averaging import average
from diredi.decentralized.network import MAIN
from diredi.decentralized.recipe import NetworkRecipe, TrainingRecipe
from diredi.errors import InvalidInput
from diredi.store.weights import WeightMap
from peer_node.classification import DataConfig, create_peer, load_data, parse_section, weights_of
from peer_node.learner import LearnerContext, Metrics, Weights, WeightsSpec


class Options(Config):
    """Configure the learner. There are no auxiliary heads."""

    network: NetworkRecipe = NetworkRecipe(backbone="mlp", auxiliary=0)
    training: TrainingRecipe = TrainingRecipe(epochs=1, batch=32)
    hub: int | None = Field(default=None, ge=0)
    """Which peer averages for all, counted from 0; None: each does for itself."""


def create_learner(context: LearnerContext) -> FedAvgLearner:
    """Make the learner that the configuration describes.

    Raises:
        InvalidInput: The section `data` or `options` is wrong.
        DirediError: The set cannot be loaded.
    """
    torch.set_num_threads(1)  # peers of one machine would wait for each other's threads at every operator
    data, options = parse_section(DataConfig, context.data), parse_section(Options, context.options)
    return FedAvgLearner(context, data, options)


class FedAvgLearner:
    """Learn own labels, and go on from the mean of the weights of several peers."""

    def __init__(self, context: LearnerContext, data: DataConfig, options: Options) -> None:
        dataset, network = load_data(data), options.network.model_copy(update={"auxiliary": 0})
        self._training, self._test = options.training, dataset.test
        self._peer = create_peer(context, data, network, dataset, seed=context.seed)
        self._has_hub = options.hub is not None
        self.collects_first = options.hub == context.peer
        self._last_finite = weights_of(self._peer.network)
        self.payload_spec = WeightsSpec(self._last_finite)

    def fit(self, round_: int) -> Metrics:
        """Learn own labels; go back to the last finite weights where that makes a number infinite or NaN.

        That can happen after a mean with weights that were sent to do harm.
        """
        self._peer.learn_labels(self._training, round_)
        weights = weights_of(self._peer.network)
        if _is_finite(weights):
            self._last_finite = weights
        else:
            self._load(self._last_finite)
        return self._accuracy()

    def compute_update(self, round_: int) -> Weights:
        """Return the weights as they are now."""
        return Weights(weights_of(self._peer.network), len(self._peer.labels))

    def build_request(self, round_: int) -> None:
        """Ask for weights."""

    def learn(self, round_: int, answers: Mapping[str, Weights]) -> Metrics:
        """Go on from the mean of the answers, or from the hub's; where a hub is silent, from the own weights.

        Weights are added in the order of names, so that every peer gets the same sums.
        """
        updates = [answers[name] for name in sorted(answers)]
        if self.collects_first or not self._has_hub:
            updates = [self.compute_update(round_), *updates]
        mean = self._last_finite
        if updates:
            mean = average([update.weights for update in updates], [update.samples for update in updates])
        if _is_finite(mean):
            self._load(mean)
        return self._accuracy()

    def save(self, path: Path) -> None:
        """Write the weights of the network."""
        weights_of(self._peer.network).save(path)

    def _load(self, weights: WeightMap) -> None:
        self._peer.network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})

    def _accuracy(self) -> Metrics:
        """Measure on the set's test images; 0 to 1."""
        classes = self._peer.predict_logits(torch.from_numpy(self._test.images), MAIN).argmax(-1).numpy()
        return {"accuracy": float(np.mean(classes == self._test.labels))}


def _is_finite(weights: WeightMap) -> bool:
    try:
        weights.check_finite()
    except InvalidInput:
        return False
    return True
